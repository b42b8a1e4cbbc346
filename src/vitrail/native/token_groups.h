// Groups of tokens that meet each other, wherever they lie.

#pragma once

#include "simd.h"

// slots (groups, count) says which token of a image sits where; -1 is padding. Each token sits in one place.
struct TokenGroups {
    int batch, tokens;
    const int32_t* slots;
    int groups, count;

    // The groups of all images, and what is known of one of them.
    long all() const { return (long)batch * groups; }
    const int32_t* of(long group) const { return slots + group % groups * count; }
    long first_token(long group) const { return group / groups * tokens; }

    // Where the tokens of some groups lie among those of all images, one after the other, or -1 for padding.
    void places(long start, int some, long* to) const {
        for (long group = start; group < start + some; group++) {
            const int32_t* seats = of(group);
            const long first = first_token(group);
            for (int j = 0; j < count; j++) *to++ = seats[j] < 0 ? -1 : first + seats[j];
        }
    }
};
