/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pgshare-bench: every figure that the project claims, each beside its
 * yardstick, measured in the same run.
 */
#include "bench.h"
#include "measure.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define QUICK_LLC ((uint64_t)4 << 20)
#define QUICK_RUNS 2u
#define SEED UINT64_C(2007)

static const struct {
    const char *name;
    const char *about;
    void (*run)(struct pgs_bench *bench);
} benches[] = {
    { "fault", "resolving CoW faults, by outcome", pgs_bench_fault },
    { "share", "protect, compare, share", pgs_bench_share },
    { "rmap", "unsharing a mapping of many", pgs_bench_rmap },
    { "teardown", "removing a domain", pgs_bench_teardown },
    { "footprint", "metadata by page, mapping, frame", pgs_bench_footprint },
    { "audit", "a million mappings", pgs_bench_audit },
    { "scale", "256 million tracked pages", pgs_bench_scale },
    { "scan-cold", "a first pass, beside hashing and KSM",
      pgs_bench_scan_cold },
    { "scan-steady", "a pass after few pages were written",
      pgs_bench_scan_steady },
    { "scan-steer", "budgets, yield and pressure", pgs_bench_scan_steer },
    { "merge", "two equal guests", pgs_bench_merge },
    { "hint-latency", "hints while the scanner is at work",
      pgs_bench_hint_latency },
    { "analyze", "counting what images could share", pgs_bench_analyze },
#ifdef PGS_BENCH_KVM
    { "kvm-merge", "two equal guests on Linux, beside KSM",
      pgs_bench_kvm_merge },
    { "kvm-stall", "what a processor notices of it", pgs_bench_kvm_stall },
    { "kvm-fault", "writes to shared pages on Linux, beside KSM",
      pgs_bench_kvm_fault },
    { "kvm-steady", "passes over memory that nobody writes to",
      pgs_bench_kvm_steady },
    { "kvm-net", "memory really gained", pgs_bench_kvm_net },
    { "kvm-fork", "children of a frozen stub", pgs_bench_kvm_fork },
#endif
};
#define N_BENCHES (sizeof(benches) / sizeof(benches[0]))

uint32_t pgs_bench_pages(const struct pgs_bench *bench)
{
    uint64_t pages = 4 * bench->llc / PGSHARE_PAGE_SIZE;

    return (uint32_t)((pages + 8191) / 8192 * 8192);
}

bool pgs_bench_wants(const struct pgs_bench *bench, const char *metric)
{
    return !bench->only || strstr(metric, bench->only);
}

unsigned pgs_bench_rounds(const struct pgs_bench *bench, unsigned usual)
{
    if (bench->runs)
        return bench->runs;
    return bench->quick ? QUICK_RUNS : usual;
}

static void print_usage(FILE *file)
{
    fputs(
        "Usage: pgshare-bench [OPTION]... [NAME]...\n"
        "Measure the named figures, or all.\n"
        "\n"
        "  -j, --json       print an array of objects\n"
        "  -l, --list       what there is\n"
        "  -n, --runs=N     rounds of each measurement\n"
        "  -o, --only=TEXT  nothing but metrics with this text in their name\n"
        "  -q, --quick      small sets and few rounds: does it work?\n"
        "  -s, --strict     exit with 1 when a target is missed\n"
        "  -h, --help       this\n",
        file);
}

static void print_list(void)
{
    for (size_t i = 0; i < N_BENCHES; i++)
        printf("%-12s %s\n", benches[i].name, benches[i].about);
}

static void run_named(struct pgs_bench *bench, const char *name)
{
    for (size_t i = 0; i < N_BENCHES; i++)
        if (!strcmp(benches[i].name, name)) {
            benches[i].run(bench);
            return;
        }
    pgs_bench_die("there is no \"%s\"; see --list", name);
}

static unsigned parse_runs(const char *text)
{
    char *end;
    unsigned long runs = strtoul(text, &end, 10);

    if (!*text || *end || !runs || runs > 1000000)
        pgs_bench_die("--runs: 1 … 1000000");
    return (unsigned)runs;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, 'j' },
        { "list", no_argument, NULL, 'l' },
        { "runs", required_argument, NULL, 'n' },
        { "only", required_argument, NULL, 'o' },
        { "quick", no_argument, NULL, 'q' },
        { "strict", no_argument, NULL, 's' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct pgs_bench bench = { .llc = pgs_bench_llc(), .seed = SEED };
    bool json = false, strict = false, ok;
    int c;

    while ((c = getopt_long(argc, argv, "jln:o:qsh", options, NULL)) != -1) {
        switch (c) {
        case 'j':
            json = true;
            break;
        case 'l':
            print_list();
            return EXIT_SUCCESS;
        case 'n':
            bench.runs = parse_runs(optarg);
            break;
        case 'o':
            bench.only = optarg;
            break;
        case 'q':
            bench.quick = true;
            break;
        case 's':
            strict = true;
            break;
        case 'h':
            print_usage(stdout);
            return EXIT_SUCCESS;
        default:
            print_usage(stderr);
            return 2;
        }
    }
    if (bench.quick)
        bench.llc = QUICK_LLC;
    bench.report = pgs_report_new();
    pgs_report_note(bench.report, "last-level cache: %.1f MiB%s",
                    (double)bench.llc / (1 << 20),
                    bench.quick ? " (--quick: figures mean nothing)" : "");
    for (size_t i = 0; optind == argc && i < N_BENCHES; i++)
        benches[i].run(&bench);
    for (int i = optind; i < argc; i++)
        run_named(&bench, argv[i]);
    if (json)
        pgs_report_print_json(bench.report, stdout);
    else
        pgs_report_print(bench.report, stdout);
    ok = pgs_report_ok(bench.report);
    bench.report = pgs_report_free(bench.report);
    return ok || !strict ? EXIT_SUCCESS : EXIT_FAILURE;
}
