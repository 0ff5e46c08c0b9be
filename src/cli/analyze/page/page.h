/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PGSHARE_CLI_PAGE_H
#define PGSHARE_CLI_PAGE_H

/* What is before and behind the figures in a report: see embed.py. */
extern const char page_before[];
extern const char page_behind[];

#endif
