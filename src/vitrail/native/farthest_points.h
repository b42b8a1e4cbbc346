// Farthest-point sampling with exact pruning by boxes.
//
// Each leaf knows the largest squared distance of its points to the chosen ones. A new point changes nothing in a leaf
// whose box is at least so far away; leaves are tested LANES at a time, and GROUP of them share a box of their own.

#pragma once

#include "points.h"

constexpr int GROUP = 16;

// Boxes and largest distances, one vector lane each; padded to whole vectors with -1, which never needs an update.
struct Boxes {
    std::vector<float> low[3], high[3], largest;
    std::vector<int32_t> where;  // position of the point with the largest distance

    explicit Boxes(long count) : largest(count, -1.0f), where(count, 0) {
        for (int d = 0; d < 3; d++) low[d].resize(count), high[d].resize(count);
    }
    void set(long i, const Box& box) {
        for (int d = 0; d < 3; d++) low[d][i] = box.low[d], high[d][i] = box.high[d];
    }
    // Bits of the LANES boxes from i on that hold a point that may come nearer by p.
    unsigned changing(const float* p, long i) const {
        Vec sum = {};
        for (int d = 0; d < 3; d++) {
            const Vec apart = max(max(load(&low[d][i]) - p[d], p[d] - load(&high[d][i])), Vec{});
            sum = d ? sum + apart * apart : apart * apart;
        }
        return lanes_of(sum < load(&largest[i]));
    }
};

class Farthest {
public:
    Farthest(const float* points, long size)
        : tree(points, size),
          groups((tree.leaves + GROUP - 1) / GROUP),
          distances(tree.leaves * LEAF, INFINITE),
          leaves(groups * GROUP),
          tops((groups + LANES - 1) / LANES * LANES) {
        for (long i = size; i < tree.leaves * LEAF; i++) distances[i] = -1.0f;
        std::vector<Box> boxes(groups);
        for (const Node& node : tree.nodes)
            if (node.leaves == 1) {
                leaves.set(node.first, node.box);
                leaves.largest[node.first] = INFINITE;
                leaves.where[node.first] = node.first * LEAF;
                boxes[node.first / GROUP].add(node.box.low, node.box.high);
            }
        for (long i = 0; i < groups; i++) {
            tops.set(i, boxes[i]);
            best_of(leaves, i * GROUP, (i + 1) * GROUP, tops.largest[i], tops.where[i]);
        }
    }

    void choose(long count, long start, int64_t* chosen) {
        long at = std::find(tree.index.begin(), tree.index.end(), (int32_t)start) - tree.index.begin();
        for (long i = 0; i < count; i++) {
            chosen[i] = tree.index[at];
            if (i + 1 < count) add(at), at = farthest();
        }
    }

private:
    Tree tree;
    long groups;
    std::vector<float> distances;
    Boxes leaves, tops;

    void add(long at) {
        const float p[3] = {tree.axes[0][at], tree.axes[1][at], tree.axes[2][at]};
        for (long i = 0; i < groups; i += LANES)
            for (unsigned bits = tops.changing(p, i); bits; bits &= bits - 1) update_group(p, i + __builtin_ctz(bits));
    }

    void update_group(const float* p, long group) {
        const long first = group * GROUP;
        unsigned any = 0;
        for (int i = 0; i < GROUP; i += LANES)
            for (unsigned bits = leaves.changing(p, first + i); bits; bits &= bits - 1) {
                update_leaf(p, first + i + __builtin_ctz(bits));
                any = 1;
            }
        if (any) best_of(leaves, first, first + GROUP, tops.largest[group], tops.where[group]);
    }

    void update_leaf(const float* p, long leaf) {
        float* of_leaf = &distances[leaf * LEAF];
        Vec most = broadcast(-1.0f);
        for (int i = 0; i < LEAF; i += LANES) {
            const Vec nearer = min(load(of_leaf + i), tree.squared_distances(p, leaf * LEAF + i));
            store(of_leaf + i, nearer);
            most = max(most, nearer);
        }
        const float found = largest(most);
        leaves.largest[leaf] = found;
        for (int i = 0;; i += LANES)  // the first of equal ones
            if (const unsigned bits = lanes_of(load(of_leaf + i) == broadcast(found))) {
                leaves.where[leaf] = (int32_t)(leaf * LEAF + i + __builtin_ctz(bits));
                return;
            }
    }

    // Largest distance of some boxes and the position of its point: of equal ones, that of the lowest index.
    void best_of(const Boxes& boxes, long from, long to, float& value, int32_t& where) const {
        Vec most = broadcast(-1.0f);
        for (long i = from; i < to; i += LANES) most = max(most, load(&boxes.largest[i]));
        value = largest(most);
        where = -1;
        for (long i = from; i < to; i += LANES)
            for (unsigned bits = lanes_of(load(&boxes.largest[i]) == broadcast(value)); bits; bits &= bits - 1) {
                const int32_t place = boxes.where[i + __builtin_ctz(bits)];
                if (where < 0 || tree.index[place] < tree.index[where]) where = place;
            }
    }

    long farthest() const {
        float value;
        int32_t where;
        best_of(tops, 0, (long)tops.largest.size(), value, where);
        return where;
    }
};
