// Matrix products on AMX (Advanced Matrix Extensions) of recent Xeons: Intel, Architecture Instruction Set Extensions
// Programming Reference, chapter 3.
//
// AMX has eight tile registers of 16 rows x 64 bytes. One instruction accumulates into a tile of 16 x 16 sums the
// product of 16 rows (64 bytes each) with 16 k-steps of 16 KPacks, which are read from a panel (gemm.h) in place.

#pragma once

#include "simd.h"

#if defined(__AMX_TILE__) && defined(__AVX512F__) && defined(__linux__)
#define HAS_AMX 1

extern "C" int arch_prctl(int code, unsigned long argument);

namespace amx {

constexpr int SIDE = 16;    // rows of a tile register, and k-steps or fp32 values per row
constexpr int BYTES = 64;   // bytes of a row
constexpr int AMX_MIN = 8;  // minimum rows and k-steps to use AMX: half a tile register, not tuned

// Linux enables the tile registers per process, on request.
static const bool GRANTED = [] {
    constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
    return arch_prctl(request, tile_data) == 0;
}();

struct Shape {
    int rows, bytes;
};

// Tile configuration of one operation, held by the thread for its lifetime.
class Registers {
public:
    // Accumulators, left and right operands of `multiply` in amx_gemm.h.
    Registers(int rows, int steps)
        : Registers({{rows, BYTES},
                     {rows, BYTES},
                     {rows, BYTES},
                     {rows, BYTES},
                     {rows, 4 * steps},
                     {rows, 4 * steps},
                     {steps, BYTES},
                     {steps, BYTES}}) {}
    explicit Registers(std::initializer_list<Shape> shapes) {
        alignas(64) uint8_t palette[64] = {1};
        int i = 0;
        for (const Shape shape : shapes) {
            const uint16_t bytes = (uint16_t)shape.bytes;
            std::memcpy(palette + 16 + 2 * i, &bytes, 2);
            palette[48 + i++] = (uint8_t)shape.rows;
        }
        asm volatile("ldtilecfg %0" ::"m"(palette));
    }
    ~Registers() { asm volatile("tilerelease"); }
    Registers(const Registers&) = delete;
    Registers& operator=(const Registers&) = delete;
};

template <int T>
static IN_REGISTERS void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
}

// Load a tile from rows `stride` bytes apart.
template <int T>
static IN_REGISTERS void read(const void* at, long stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(at), "r"(stride), "i"(T) : "memory");
}

template <int T>
static IN_REGISTERS void write(void* at, long stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(at), "r"(stride), "i"(T) : "memory");
}

// sums += rows * words: dot products of 2 bf16 pairs, or of 4 pairs of an unsigned and a signed byte.
template <int SUMS, int ROWS, int WORDS>
static IN_REGISTERS void add_bfloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROWS), "i"(WORDS));
}

template <int SUMS, int ROWS, int WORDS>
static IN_REGISTERS void add_bytes() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROWS), "i"(WORDS));
}

// Maximum k-steps per instruction such that all have the same number: reconfiguring for a shorter last one would clear
// the accumulators.
static inline int steps_at_once(int steps) {
    int parts = (steps + SIDE - 1) / SIDE;
    while (steps % parts != 0) parts++;
    return steps / parts;
}

static inline bool use_amx(int rows, int steps) {
    return GRANTED && rows >= AMX_MIN && steps_at_once(steps) >= AMX_MIN;
}

}  // namespace amx
#endif
