/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parsing is strict, since strtoull() is not: it takes a sign, white space and
 * whatever follows the digits.
 */
#include "units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool parse_number(const char *text, uint64_t max, uint64_t *ret_number)
{
    unsigned long long number;
    bool hex = text[0] == '0' && text[1] == 'x';
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    number = strtoull(text, &end, hex ? 16 : 10);
    if (errno || *end || end == text || number > max)
        return false;
    *ret_number = number;
    return true;
}

static int shift_of(char suffix)
{
    switch (suffix) {
    case 'K':
    case 'k':
        return 10;
    case 'M':
    case 'm':
        return 20;
    case 'G':
    case 'g':
        return 30;
    case 'T':
    case 't':
        return 40;
    default:
        return 0;
    }
}

bool parse_size(const char *text, uint64_t *ret_bytes)
{
    size_t len = strlen(text);
    char digits[UNITS_MAX];
    int shift;
    uint64_t number;

    if (!len || len >= sizeof(digits))
        return false;
    shift = shift_of(text[len - 1]);
    if (shift)
        len--;
    memcpy(digits, text, len);
    digits[len] = '\0';
    if (!parse_number(digits, UINT64_MAX >> shift, &number))
        return false;
    *ret_bytes = number << shift;
    return true;
}

const char *format_number(uint64_t number, char ret_text[UNITS_MAX])
{
    char digits[UNITS_MAX];
    int len = snprintf(digits, sizeof(digits), "%" PRIu64, number);
    int out = 0;

    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            ret_text[out++] = ',';
        ret_text[out++] = digits[i];
    }
    ret_text[out] = '\0';
    return ret_text;
}

/* In tenths, so that nothing but the last digit is rounded. */
static void format_tenths(uint64_t tenths, const char *unit,
                          char ret_text[UNITS_MAX])
{
    if (tenths % 10)
        snprintf(ret_text, UNITS_MAX, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10,
                 tenths % 10, unit);
    else
        snprintf(ret_text, UNITS_MAX, "%" PRIu64 " %s", tenths / 10, unit);
}

const char *format_size(uint64_t bytes, char ret_text[UNITS_MAX])
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
    size_t unit = 0;
    uint64_t tenths;

    while (unit < 3 && bytes >> (10 * (unit + 2)))
        unit++;
    bytes >>= 10 * unit;
    tenths = (bytes * 10 + 512) / 1024;
    format_tenths(tenths, units[unit], ret_text);
    return ret_text;
}

const char *format_time(uint64_t us, char ret_text[UNITS_MAX])
{
    if (us < 1000)
        snprintf(ret_text, UNITS_MAX, "%" PRIu64 " us", us);
    else if (us < 1000 * 1000)
        format_tenths((us + 50) / 100, "ms", ret_text);
    else
        format_tenths((us + 50000) / 100000, "s", ret_text);
    return ret_text;
}
