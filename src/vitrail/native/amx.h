// Products on the matrix unit of newer Xeons (AMX, Advanced Matrix Extensions): Intel, Architecture Instruction Set
// Extensions Programming Reference, chapter 3.
//
// The unit has eight registers of 16 rows and 64 bytes. One instruction adds to a square of 16 x 16 sums the products
// of 16 rows of numbers, 64 bytes of each, with 16 steps of 16 KPacks. Those are the KPacks of a panel (gemm.h), as
// they lie.

#pragma once

#include "simd.h"

#if defined(__AMX_TILE__) && defined(__AVX512F__) && defined(__linux__)
#define HAS_AMX 1

extern "C" int arch_prctl(int code, unsigned long argument);

namespace amx {

constexpr int SIDE = 16;    // rows of a register, and steps or numbers of fp32 in one of its rows
constexpr int BYTES = 64;   // of a row
constexpr int AMX_MIN = 8;    // rows and steps from which it is taken: half a register, a guess until it is measured

// Linux gives the registers to a process that asks for them, and only to one.
static const bool GRANTED = [] {
    constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
    return arch_prctl(request, tile_data) == 0;
}();

struct Shape {
    int rows, bytes;
};

// The registers in the shapes that one operation needs; they belong to the thread until it is done.
class Registers {
   public:
    // Sums, rows and words of `multiply` in amx_gemm.h.
    Registers(int rows, int steps)
        : Registers({{rows, BYTES}, {rows, BYTES}, {rows, BYTES}, {rows, BYTES}, {rows, 4 * steps}, {rows, 4 * steps},
                     {steps, BYTES}, {steps, BYTES}}) {}
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

// Read rows that begin `stride` bytes apart.
template <int T>
static IN_REGISTERS void read(const void* at, long stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(at), "r"(stride), "i"(T) : "memory");
}

template <int T>
static IN_REGISTERS void write(void* at, long stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(at), "r"(stride), "i"(T) : "memory");
}

// sums += rows * words: pairs of bfloat16, or fours of an unsigned and a signed byte.
template <int SUMS, int ROWS, int WORDS>
static IN_REGISTERS void add_bfloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROWS), "i"(WORDS));
}

template <int SUMS, int ROWS, int WORDS>
static IN_REGISTERS void add_bytes() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROWS), "i"(WORDS));
}

// The most steps that an instruction can take so that all take as many, for a last one of another shape would lose the
// sums.
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
