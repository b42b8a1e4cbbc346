// Windows of a map as rows of a product, gathered a few at a time, so that they never leave the cache.

#pragma once

#include "layers.h"

// A map of pictures, channels last, and the windows that a convolution takes from it.
struct Windows {
    int height, width, channels;
    int size, stride, top, left;  // side of a window, step between two, and how far the first one begins outside
    int rows, columns;            // how many there are

    long count() const { return (long)rows * columns; }
    int depth() const { return size * size * channels; }
};

// Copy numbers in whole vectors; what is written beyond is overwritten later. `end` is where reading must stop.
template <class Item>
static inline void copy(const Item* from, int count, const Item* end, Item* to) {
    if (end - from < round_up(count, LANES)) {
        std::memcpy(to, from, count * sizeof(Item));
    } else {
        for (int i = 0; i < count; i += LANES) std::memcpy(to + i, from + i, LANES * sizeof(Item));
    }
}

// Write window `index` of a picture to `to`, row by row, with zeros for what lies outside. Needs room for one vector more.
template <class Item>
static inline void gather(const Item* picture, const Item* end, const Windows& w, long index, Item* to) {
    const int y = (int)(index / w.columns) * w.stride - w.top, x = (int)(index % w.columns) * w.stride - w.left;
    const int before = std::max(0, -x), after = std::max(0, x + w.size - w.width), line = w.size * w.channels;
    for (int i = 0; i < w.size; i++, to += line) {
        const bool inside = y + i >= 0 && y + i < w.height && before + after < w.size;
        if (!inside || before + after > 0) std::memset(to, 0, line * sizeof(Item));
        if (!inside) continue;
        const Item* from = picture + ((long)(y + i) * w.width + x + before) * w.channels;
        const int items = (w.size - before - after) * w.channels;
        if (before + after > 0) {
            std::memcpy(to + before * w.channels, from, items * sizeof(Item));
        } else {
            copy(from, items, end, to);
        }
    }
}
