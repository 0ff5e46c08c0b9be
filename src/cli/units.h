/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers as people write and read them.
 */
#ifndef PGSHARE_CLI_UNITS_H
#define PGSHARE_CLI_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "512", "64K", "64M", "2G": bytes. False: it is none, or too large. */
bool parse_size(const char *text, uint64_t *ret_bytes);

/* A number in decimal or, with 0x, in hexadecimal, up to `max`. */
bool parse_number(const char *text, uint64_t max, uint64_t *ret_number);

/* Room for what these two write. */
#define UNITS_MAX 32

/* "1,234,567" */
const char *format_number(uint64_t number, char ret_text[UNITS_MAX]);

/* "64 MiB", "1.5 MiB": at most one decimal, rounded. */
const char *format_size(uint64_t bytes, char ret_text[UNITS_MAX]);

/* "80 us", "1.3 ms", "2 s" */
const char *format_time(uint64_t us, char ret_text[UNITS_MAX]);

#endif
