// Shares of keys in a softmax, for what is learned from them.

#pragma once

#include "dtypes.h"

// e^x; what is forbidden, by however little, has no share at all: shares too small for a normal float cost much time.
template <class N>
static inline Vec prob_of(Vec x) {
    return x > -80.0f ? N::exponential(x) : Vec{};
}
