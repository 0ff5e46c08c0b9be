/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest embedding: two guests of a mock machine read the same block of
 * a CoW disk, the hints make them share it, and a write breaks the sharing.
 */
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#include <stdio.h>
#include <stdlib.h>

#define MEMORY 64 /* pages of each guest */

static void check(int error)
{
    if (error) {
        fprintf(stderr, "embed_mock: %s\n", pgshare_error_text(error));
        exit(1);
    }
}

static uint64_t saved(struct pgshare_host *host)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    check(pgshare_host_stats(host, &stats));
    return stats.saved;
}

int main(void)
{
    static const char image[8 * 4096] = "a kernel, a libc, and so on";
    struct pgshare_mock_disk_options base = {
        .size = sizeof(base), .blocks = 8, .bytes = image, .len = sizeof(image)
    };
    struct pgshare_audit audit = { .size = sizeof(audit) };
    struct pgshare_mock_domain *guests[2];
    struct pgshare_mock_machine *machine;
    struct pgshare_mock_disk *disk;
    struct pgshare_host *host;
    uint64_t group;

    check(pgshare_mock_machine_new(NULL, &machine));
    check(pgshare_mock_disk_new(machine, &base, &disk));
    check(pgshare_host_new(pgshare_mock_backend(machine), NULL, &host));
    check(pgshare_group_open(host, "mine", &group));
    for (int i = 0; i < 2; i++) {
        check(pgshare_mock_domain_new(machine, MEMORY, NULL, &guests[i]));
        check(pgshare_mock_populate(guests[i], 0, MEMORY));
        check(pgshare_mock_join(guests[i], host, group));
        check(pgshare_mock_block_read(guests[i], disk, 0, 10, 1));
    }

    check(pgshare_host_settle(host, PGSHARE_FOREVER));
    printf("shared: %llu page saved\n", (unsigned long long)saved(host));
    check(pgshare_mock_write(guests[1], 10, 0, "A", 1));
    printf("written: %llu pages saved\n", (unsigned long long)saved(host));

    check(pgshare_host_audit(host, NULL, &audit));
    pgshare_host_free(host);
    pgshare_mock_machine_free(machine);
    return audit.violations != 0;
}
