/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library in a main loop: an event loop over epoll that waits for the
 * host's descriptors, for its deadline, and for its wake-up, while guests run
 * in threads of their own.
 *
 *     platform.wake ──→ eventfd ─┐
 *     host_poll: descriptors  ───┼─→ epoll_wait(deadline) ─→ host_run
 */
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>
#include <pgshare/sys/platform.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define GUESTS 2
#define BLOCKS 256
#define MAX_FDS 16

static struct pgshare_mock_domain *guests[GUESTS];
static struct pgshare_mock_disk *disk;
static struct pgshare_host *host;

static void check(int error)
{
    if (error && error != PGSHARE_ERR_BUSY) {
        fprintf(stderr, "main_loop: %s\n", pgshare_error_text(error));
        exit(1);
    }
}

/* Called by the library, from any thread; must not block. */
static void wake(void *ctx)
{
    const int *fd = ctx;

    eventfd_write(*fd, 1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Until when epoll may wait: the host's deadline, rounded up. */
static int wait_ms(uint64_t deadline_ns)
{
    uint64_t now = now_ns();

    if (deadline_ns <= now)
        return 0;
    if (deadline_ns == PGSHARE_FOREVER || deadline_ns - now > 1000000000u)
        return 1000;
    return (int)((deadline_ns - now + 999999) / 1000000);
}

/* One turn of the loop. */
static void turn(int epoll, int wake_fd)
{
    int fds[MAX_FDS];
    struct pgshare_poll poll = { .size = sizeof(poll),
                                 .fds = fds,
                                 .max_fds = MAX_FDS };
    struct epoll_event events[MAX_FDS + 1];
    eventfd_t ignored;
    int n;

    check(pgshare_host_poll(host, &poll));
    for (uint32_t i = 0; i < poll.n_fds; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.fd = fds[i] };

        epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event); /* or it is there */
    }
    n = epoll_wait(epoll, events, MAX_FDS + 1, wait_ms(poll.deadline_ns));
    for (int i = 0; i < n; i++)
        if (events[i].data.fd == wake_fd)
            eventfd_read(wake_fd, &ignored);
    check(pgshare_host_run(host, NULL, NULL));
}

/* A guest reads the whole disk, and changes a little. */
static void *guest_main(void *ctx)
{
    struct pgshare_mock_domain *guest = ctx;

    for (uint64_t block = 0; block < BLOCKS; block++) {
        check(pgshare_mock_block_read(guest, disk, block, block, 1));
        if (block % 16 == 0)
            check(pgshare_mock_write(guest, block, 0, &guest, sizeof(guest)));
    }
    return NULL;
}

static uint64_t shared_now(void)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    check(pgshare_host_stats(host, &stats));
    return stats.saved;
}

int main(void)
{
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN, .data.fd = wake_fd };
    struct pgshare_platform platform = { .size = sizeof(platform),
                                         .ctx = &wake_fd,
                                         .wake = wake };
    struct pgshare_host_options options = { .size = sizeof(options),
                                            .platform = &platform };
    static unsigned char image[BLOCKS * 4096];
    struct pgshare_mock_disk_options base = { .size = sizeof(base),
                                              .blocks = BLOCKS,
                                              .bytes = image,
                                              .len = sizeof(image) };
    struct pgshare_mock_machine *machine;
    pthread_t threads[GUESTS];
    uint64_t group, stop;

    for (size_t i = 0; i < sizeof(image); i++)
        image[i] = (unsigned char)(i / 4096 * 7 + i % 251);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, wake_fd, &event))
        return 1;
    check(pgshare_mock_machine_new(NULL, &machine));
    check(pgshare_mock_disk_new(machine, &base, &disk));
    check(pgshare_host_new(pgshare_mock_backend(machine), &options, &host));
    check(pgshare_group_open(host, "mine", &group));
    for (int i = 0; i < GUESTS; i++) {
        check(pgshare_mock_domain_new(machine, BLOCKS, NULL, &guests[i]));
        check(pgshare_mock_populate(guests[i], 0, BLOCKS));
        check(pgshare_mock_join(guests[i], host, group));
    }
    for (int i = 0; i < GUESTS; i++)
        if (pthread_create(&threads[i], NULL, guest_main, guests[i]))
            return 1;

    stop = now_ns() + UINT64_C(20000000000);
    while (shared_now() < BLOCKS / 2 && now_ns() < stop)
        turn(epoll, wake_fd);
    for (int i = 0; i < GUESTS; i++)
        pthread_join(threads[i], NULL);
    printf("%llu of %d pages saved\n", (unsigned long long)shared_now(),
           GUESTS * BLOCKS);

    pgshare_host_free(host);
    pgshare_mock_machine_free(machine);
    close(epoll);
    close(wake_fd);
    return now_ns() >= stop;
}
