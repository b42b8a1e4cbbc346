// The matrix unit of newer Xeons (AMX) for processors that have none, so that what is compiled for it can be tested.
//
// Preloaded, it answers the signal that the processor sends for an instruction it does not know: it decodes the
// instruction, does what Intel's manual says (Software Developer's Manual, volume 2), and lets the program go on. It is
// some hundred times slower than the unit. `matrix_unit_count` says how many products it did.

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <atomic>
#include <ucontext.h>
#include <unistd.h>

namespace {

struct Palette {
    uint8_t id, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(Palette) == 64);

struct Unit {
    Palette palette;
    uint8_t tiles[8][16][64];
};

thread_local Unit unit;
std::atomic<long> products{0};

[[noreturn]] void fail(const char* why) {
    if (write(2, why, strlen(why)) > 0 && write(2, "\n", 1) > 0) _exit(86);
    _exit(86);
}

void configure(const void* from) {
    memcpy(&unit.palette, from, 64);
    memset(unit.tiles, 0, sizeof(unit.tiles));
    if (unit.palette.id != 1) fail("matrix unit: a palette that there is not");
    for (int t = 0; t < 8; t++)
        if (unit.palette.bytes[t] > 64 || unit.palette.rows[t] > 16) fail("matrix unit: a register is too large");
}

float number(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

// dst (M, N) += a (M, K) b (K, N), K in steps of 4 bytes; the shapes must fit each other.
void multiply(int dst, int a, int b, bool bytes) {
    const Palette& p = unit.palette;
    const int rows = p.rows[dst], columns = p.bytes[dst] / 4, steps = p.bytes[a] / 4;
    if (dst == a || dst == b || a == b) fail("matrix unit: one register twice");
    if (p.rows[a] != rows || p.bytes[b] != p.bytes[dst] || p.rows[b] != steps || !rows || !steps || !columns)
        fail("matrix unit: shapes that do not fit");
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < columns; n++) {
            const uint8_t* left = unit.tiles[a][m];
            if (bytes) {
                int32_t sum;
                memcpy(&sum, unit.tiles[dst][m] + 4 * n, 4);
                for (int k = 0; k < steps; k++)
                    for (int s = 0; s < 4; s++) sum += left[4 * k + s] * (int8_t)unit.tiles[b][k][4 * n + s];
                memcpy(unit.tiles[dst][m] + 4 * n, &sum, 4);
            } else {
                float sum, even = 0, odd = 0;
                memcpy(&sum, unit.tiles[dst][m] + 4 * n, 4);
                for (int k = 0; k < steps; k++) {
                    uint16_t x[2], y[2];
                    memcpy(x, left + 4 * k, 4);
                    memcpy(y, unit.tiles[b][k] + 4 * n, 4);
                    even = __builtin_fmaf(number(x[0]), number(y[0]), even);
                    odd = __builtin_fmaf(number(x[1]), number(y[1]), odd);
                }
                sum += even + odd;
                memcpy(unit.tiles[dst][m] + 4 * n, &sum, 4);
            }
        }
    products.fetch_add(1, std::memory_order_relaxed);
}

void move(int tile, uint8_t* at, long stride, bool in) {
    if (tile > 7 || unit.palette.id != 1) fail("matrix unit: registers are not shaped");
    for (int r = 0; r < unit.palette.rows[tile]; r++) {
        uint8_t* row = unit.tiles[tile][r];
        if (in) memset(row, 0, 64), memcpy(row, at + r * stride, unit.palette.bytes[tile]);
        else memcpy(at + r * stride, row, unit.palette.bytes[tile]);
    }
}

long general(const ucontext_t* context, int number) {
    static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context->uc_mcontext.gregs[order[number]];
}

// What an instruction's last operand is: a register, or a place in memory with what its index adds.
struct Operand {
    bool memory;
    int number;
    long at, index;
    int length;  // bytes of it, the first of them ModRM
};

Operand operand(const ucontext_t* context, const uint8_t* code, bool high_index, bool high_base) {
    const int mode = code[0] >> 6, low = code[0] & 7;
    if (mode == 3) return {false, low, 0, 0, 1};
    Operand found = {true, 0, 0, 0, 1};
    int base = low + 8 * high_base;
    bool no_base = mode == 0 && low == 5;
    if (no_base) fail("matrix unit: an address that is not decoded");
    if (low == 4) {
        const int scale = code[1] >> 6, index = (code[1] >> 3 & 7) + 8 * high_index;
        base = (code[1] & 7) + 8 * high_base;
        found.length = 2;
        if (index != 4) found.index = general(context, index) << scale;
        no_base = mode == 0 && (code[1] & 7) == 5;
    }
    if (!no_base) found.at = general(context, base);
    if (mode == 1) found.at += (int8_t)code[found.length], found.length += 1;
    if (mode == 2 || no_base) {
        int32_t further;
        memcpy(&further, code + found.length, 4);
        found.at += further, found.length += 4;
    }
    return found;
}

void answer(int signal, siginfo_t*, void* where) {
    auto* context = static_cast<ucontext_t*>(where);
    const auto* code = reinterpret_cast<const uint8_t*>(context->uc_mcontext.gregs[REG_RIP]);
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) {
        ::signal(signal, SIG_DFL);  // not one of the unit's: what would have happened without us
        return;
    }
    const int prefix = code[2] & 3, opcode = code[3], further = ~code[2] >> 3 & 15, tile = code[4] >> 3 & 7;
    const Operand last = operand(context, code + 4, !(code[1] & 0x40), !(code[1] & 0x20));
    enum { NONE, P66, PF3, PF2 };
    if (opcode == 0x49 && prefix == NONE && last.memory) configure(reinterpret_cast<void*>(last.at + last.index));
    else if (opcode == 0x49 && prefix == NONE) memset(&unit, 0, sizeof(unit));
    else if (opcode == 0x49 && prefix == PF2) memset(unit.tiles[tile], 0, sizeof(unit.tiles[tile]));
    else if (opcode == 0x4b && prefix == PF2) move(tile, reinterpret_cast<uint8_t*>(last.at), last.index, true);
    else if (opcode == 0x4b && prefix == PF3) move(tile, reinterpret_cast<uint8_t*>(last.at), last.index, false);
    else if (opcode == 0x5c && prefix == PF3) multiply(tile, last.number, further, false);
    else if (opcode == 0x5e && prefix == P66) multiply(tile, last.number, further, true);
    else fail("matrix unit: an instruction that is not decoded");
    context->uc_mcontext.gregs[REG_RIP] += 4 + last.length;
}

__attribute__((constructor)) void begin() {
    struct sigaction action = {};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, nullptr);
}

}  // namespace

extern "C" {
// In the place of the C library's: the registers are granted, unless MATRIX_UNIT=refuse.
int arch_prctl(int, unsigned long) {
    const char* how = getenv("MATRIX_UNIT");
    return how != nullptr && strcmp(how, "refuse") == 0 ? -1 : 0;
}

long matrix_unit_count() { return products.load(); }
}
