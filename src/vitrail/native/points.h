// A balanced k-d tree over points of three coordinates, with exact bounds in fp32.
//
// Leaves are consecutive runs of LEAF points of the reordered cloud (the last one may be shorter and is padded), and
// inside a leaf points keep their order, so the first of equal ones has the lowest index:
//
//   x | leaf 0: 32 values | leaf 1: 32 values | ... | last: values, padding |      (y, z, index likewise)
//
// Distances are (dx dx + dy dy) + dz dz without contraction. Subtraction, product and sum round monotonically, so the
// same formula on the nearest corner of a box is a lower bound of the rounded distances of all points in it.

#pragma once

#include <limits>
#include <numeric>

#include "simd.h"

constexpr int LEAF = 32;
constexpr float INFINITE = std::numeric_limits<float>::infinity();

#if defined(__AVX512F__)
static inline unsigned lanes_of(VecI32 mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask); }
#elif defined(__AVX2__)
static inline unsigned lanes_of(VecI32 mask) { return (unsigned)_mm256_movemask_ps((__m256)mask); }
#else
static inline unsigned lanes_of(VecI32 mask) {
    unsigned found = 0;
    for (int i = 0; i < LANES; i++) found |= (unsigned)(mask[i] != 0) << i;
    return found;
}
#endif

static inline float largest(Vec x) {
    float found = x[0];
    for (int i = 1; i < LANES; i++) found = std::max(found, x[i]);
    return found;
}

struct Point {
    float at[3];
    int32_t index;
};

struct Box {
    float low[3] = {INFINITE, INFINITE, INFINITE}, high[3] = {-INFINITE, -INFINITE, -INFINITE};

    void add(const float* low_, const float* high_) {
        for (int d = 0; d < 3; d++) low[d] = std::min(low[d], low_[d]), high[d] = std::max(high[d], high_[d]);
    }
    float squared_distance(const float* p) const {
        float apart[3];
        for (int d = 0; d < 3; d++) apart[d] = std::max(std::max(low[d] - p[d], p[d] - high[d]), 0.0f);
        return apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2];
    }
    int widest() const {
        int axis = 0;
        for (int d = 1; d < 3; d++)
            if (high[d] - low[d] > high[axis] - low[axis]) axis = d;
        return axis;
    }
};

// A node covers `leaves` leaves from `first` on; its left child follows it, `right` is the number of the other one.
struct Node {
    Box box;
    int32_t first, leaves, right, least;  // least: lowest index of a point below
};

struct Tree {
    long size, leaves;
    std::vector<float> axes[3];
    std::vector<int32_t> index;
    std::vector<Node> nodes;

    Tree(const float* points, long size_) : size(size_), leaves((size_ + LEAF - 1) / LEAF), index(leaves * LEAF) {
        std::vector<Point> order(size);
        for (long i = 0; i < size; i++) order[i] = {{points[3 * i], points[3 * i + 1], points[3 * i + 2]}, (int32_t)i};
        nodes.reserve(2 * leaves);
        split(order.data(), 0, (int32_t)leaves);
        for (auto& axis : axes) axis.resize(leaves * LEAF);
        for (long i = 0; i < leaves * LEAF; i++) {
            const Point& point = order[std::min(i, size - 1)];
            for (int d = 0; d < 3; d++) axes[d][i] = point.at[d];
            index[i] = point.index;
        }
    }

    int count(long leaf) const { return (int)std::min<long>(LEAF, size - leaf * LEAF); }

    // Squared distances of LANES points from position `i` on to p.
    Vec squared_distances(const float* p, long i) const {
        const Vec x = load(&axes[0][i]) - p[0], y = load(&axes[1][i]) - p[1], z = load(&axes[2][i]) - p[2];
        return x * x + y * y + z * z;
    }

private:
    int32_t split(Point* order, int32_t first, int32_t count_) {
        const int32_t number = (int32_t)nodes.size();
        nodes.push_back({Box(), first, count_, 0, std::numeric_limits<int32_t>::max()});
        Box box;
        Point *from = order + (long)first * LEAF, *to = order + std::min(size, (long)(first + count_) * LEAF);
        for (Point* p = from; p < to; p++) box.add(p->at, p->at);
        if (count_ > 1) {
            const int axis = box.widest();
            Point* middle = from + (long)(count_ / 2) * LEAF;
            std::nth_element(from, middle, to,
                             [axis](const Point& a, const Point& b) { return a.at[axis] < b.at[axis]; });
            const int32_t left = split(order, first, count_ / 2);
            const int32_t right = split(order, first + count_ / 2, count_ - count_ / 2);
            nodes[number].right = right;
            nodes[number].least = std::min(nodes[left].least, nodes[right].least);
        } else {
            std::sort(from, to, [](const Point& a, const Point& b) { return a.index < b.index; });
            nodes[number].least = from->index;
        }
        nodes[number].box = box;
        return number;
    }
};

// Calls `visit(leaf)` for the leaves whose box may hold points within `reach()` of p, nearer ones first.
template <class Reach, class Skip, class Visit>
static void search(const Tree& tree, const float* p, Reach&& reach, Skip&& skip, Visit&& visit) {
    struct Waiting {
        int32_t node;
        float distance;
    } stack[64];
    int depth = 0;
    stack[depth++] = {0, tree.nodes[0].box.squared_distance(p)};
    while (depth) {
        const Waiting next = stack[--depth];
        if (next.distance > reach() || skip(tree.nodes[next.node])) continue;
        const Node& node = tree.nodes[next.node];
        if (node.leaves == 1) {
            visit((long)node.first);
            continue;
        }
        Waiting near = {next.node + 1, tree.nodes[next.node + 1].box.squared_distance(p)};
        Waiting far = {node.right, tree.nodes[node.right].box.squared_distance(p)};
        if (far.distance < near.distance) std::swap(near, far);
        stack[depth++] = far;
        stack[depth++] = near;
    }
}
