/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page pinned for DMA, as a device or io_uring does it for as long as it
 * likes: here, a buffer registered with an io_uring that never uses it.
 */
#ifndef PGS_TESTS_KVM_PIN_H
#define PGS_TESTS_KVM_PIN_H

#include <stddef.h>

/* A descriptor that holds the pin, or a negative errno. */
int pin_memory(void *at, size_t bytes);
void unpin_memory(int pin);

#endif
