// Block sizes from the L2 cache size of a core.
//
//     a GEMM:  rows (mc x K) times panels of PANEL outputs (K x PANEL), in blocks of kc k-steps
//
//              kc               PANEL
//           +------+--         +-----+
//       mc  |  A   |        kc |  B  |     B stays in L2 for all mc rows, A for all panels;
//           +------+--         +-----+     partial sums between two blocks are stored in fp32
//
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), section 4. Blocks depend only on K
// and the cache size, so results do not depend on the number of rows or threads.

#pragma once

#include <unistd.h>

#include "simd.h"

// Size of the L2 cache in bytes; a default if the system does not report it, or reports one shared by many cores.
static inline long& l2_bytes() {
    static long bytes = [] {
        long found = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
        found = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        return found <= 0 ? 1L << 20 : std::min(4L << 20, std::max(128L << 10, found));
    }();
    return bytes;
}

// Maximum k-steps (words of a row) of a block: its panel takes a fifth of L2.
static inline long most_steps() { return std::max(64L, l2_bytes() / 5 / (PANEL * 4)); }

// Blocks along `steps`, which are even: block b ends at steps * (b + 1) / blocks.
static inline int k_blocks(long steps) { return (int)std::max(1L, (steps + most_steps() - 1) / most_steps()); }

// Rows whose blocks fill half of L2, with `bytes` per row.
static inline long rows_in_cache(size_t bytes) {
    return l2_bytes() / 2 / std::max(1L, std::min((long)bytes, 4 * most_steps()));
}
