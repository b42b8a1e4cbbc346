// Attention groups: token indices of each group.

#pragma once

#include "simd.h"

// slots (groups, count): token index of each slot within an image; -1 is padding. Each token has exactly one slot.
struct TokenGroups {
    int batch, tokens;
    const int32_t* slots;
    int groups, count;

    // Number of groups over all images; slots and first token of one of them.
    long all() const { return (long)batch * groups; }
    const int32_t* of(long group) const { return slots + group % groups * count; }
    long first_token(long group) const { return group / groups * tokens; }

    // Token indices of a range of groups in the whole batch; -1 for padding.
    void places(long start, int some, long* to) const {
        for (long group = start; group < start + some; group++) {
            const int32_t* seats = of(group);
            const long first = first_token(group);
            for (int j = 0; j < count; j++) *to++ = seats[j] < 0 ? -1 : first + seats[j];
        }
    }
};
