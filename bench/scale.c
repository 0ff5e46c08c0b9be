#include "bench.h"
void pgs_bench_scale(struct pgs_bench *bench) {}
