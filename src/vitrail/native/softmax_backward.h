// Softmax probabilities for the backward pass.

#pragma once

#include "dtypes.h"

// e^x, flushed to zero below -80: masked keys get exactly 0, and there are no denormals, which are slow.
template <class N>
static inline Vec prob_of(Vec x) {
    return x > -80.0f ? N::exponential(x) : Vec{};
}
