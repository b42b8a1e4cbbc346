// Sizes of blocks, chosen by the L2 cache of a core.
//
//     a GEMM:  rows (mc x K) times panels of PANEL outputs (K x PANEL), in blocks of kc steps along K
//
//              kc               PANEL
//           +------+--         +-----+
//       mc  |  A   |        kc |  B  |     B stays in L2 while all mc rows pass it, A while all panels do;
//           +------+--         +-----+     between two blocks the sums are kept in fp32 outside of the registers
//
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), section 4. A block depends on K and
// the cache alone, and not on rows or threads, so neither do sums.

#pragma once

#include <unistd.h>

#include "simd.h"

// Bytes of the L2 cache. Systems that do not report it, or report one shared by many cores, get a usual size.
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

// Most steps (words of a row) of a block: a panel of them takes a fifth of L2.
static inline long most_steps() { return std::max(64L, l2_bytes() / 5 / (PANEL * 4)); }

// Blocks along `steps`, which are even: block b ends at steps * (b + 1) / blocks.
static inline int k_blocks(long steps) { return (int)std::max(1L, (steps + most_steps() - 1) / most_steps()); }

// Rows whose blocks take half of L2, `bytes` a whole row.
static inline long rows_in_cache(size_t bytes) {
    return l2_bytes() / 2 / std::max(1L, std::min((long)bytes, 4 * most_steps()));
}
