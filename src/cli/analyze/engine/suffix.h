/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PGSHARE_CLI_SUFFIX_H
#define PGSHARE_CLI_SUFFIX_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The suffixes of `text`, in order: ret_order[i] is where the i-th smallest one
 * begins. The text's last symbol is 0 and no other is; all are below
 * `symbols`. Linear in both, whatever the text. False: no memory.
 */
bool suffix_sort(const uint32_t *text, uint32_t n, uint32_t symbols,
                 uint32_t *ret_order);

#endif
