// Shares of keys in a softmax, for what is learned from them.

#pragma once

#include "numbers.h"

// e^x; what is forbidden, by however little, has no share at all: shares too small for a normal float cost much time.
template <class N>
static inline Lanes share_of(Lanes x) {
    return x > -80.0f ? N::exponential(x) : Lanes{};
}
