// Exports for native/points.py: farthest-point sampling, nearest neighbors and ball query.
// build: -ffp-contract=off

#include <new>

#include "farthest_points.h"

struct Neighbor {
    float distance;
    int32_t index;

    bool operator<(const Neighbor& other) const {
        return distance < other.distance || (distance == other.distance && index < other.index);
    }
};

// The k nearest points in order of (distance, index).
static void nearest(const Tree& tree, const float* p, int k, Neighbor* found) {
    int held = 0;
    auto reach = [&] { return held < k ? INFINITE : found[k - 1].distance; };
    auto skip = [](const Node&) { return false; };
    search(tree, p, reach, skip, [&](long leaf) {
        const int count = tree.count(leaf);
        for (int i = 0; i < count; i += LANES) {
            const Vec distances = tree.squared_distances(p, leaf * LEAF + i);
            unsigned bits = lanes_of(distances <= broadcast(reach()));
            if (count - i < LANES) bits &= (1u << (count - i)) - 1;
            for (; bits; bits &= bits - 1) {
                const int lane = __builtin_ctz(bits);
                const Neighbor next = {distances[lane], tree.index[leaf * LEAF + i + lane]};
                if (held == k && !(next < found[k - 1])) continue;
                int place = held < k ? held++ : k - 1;
                for (; place > 0 && next < found[place - 1]; place--) found[place] = found[place - 1];
                found[place] = next;
            }
        }
    });
}

// The lowest indices of points within each of several radii, ascending.
struct Ball {
    float reach;
    int room, held = 0;
    int32_t* found;  // a max-heap while it is filled

    bool full() const { return held == room; }
    void add(int32_t index) {
        if (!full()) {
            found[held++] = index;
            std::push_heap(found, found + held);
        } else if (index < found[0]) {
            std::pop_heap(found, found + held);
            found[held - 1] = index;
            std::push_heap(found, found + held);
        }
    }
};

static void fill_balls(const Tree& tree, const float* p, std::vector<Ball>& balls) {
    float widest = 0;
    for (const Ball& ball : balls) widest = std::max(widest, ball.reach);
    auto skip = [&](const Node& node) {  // no lower index below this node
        for (const Ball& ball : balls)
            if (!ball.full() || node.least < ball.found[0]) return false;
        return true;
    };
    search(tree, p, [&] { return widest; }, skip, [&](long leaf) {
        const int count = tree.count(leaf);
        for (int i = 0; i < count; i += LANES) {
            const Vec distances = tree.squared_distances(p, leaf * LEAF + i);
            unsigned bits = lanes_of(distances <= broadcast(widest));
            if (count - i < LANES) bits &= (1u << (count - i)) - 1;
            for (; bits; bits &= bits - 1) {
                const int lane = __builtin_ctz(bits);
                for (Ball& ball : balls)
                    if (distances[lane] <= ball.reach) ball.add(tree.index[leaf * LEAF + i + lane]);
            }
        }
    });
}

// Writes one ball: its indices, padded with the first; an empty ball holds the nearest point, and counts 0.
static void write_ball(const Tree& tree, const float* p, Ball& ball, int64_t* index, int64_t* count) {
    std::sort_heap(ball.found, ball.found + ball.held);
    Neighbor closest;
    if (!ball.held) nearest(tree, p, 1, &closest);
    const int32_t first = ball.held ? ball.found[0] : closest.index;
    for (int i = 0; i < ball.room; i++) index[i] = i < ball.held ? ball.found[i] : first;
    *count = ball.held;
}

// Runs `work` and returns whether there was enough memory.
template <class Work>
static int with_memory(Work&& work) {
    try {
        work();
        return 1;
    } catch (const std::bad_alloc&) {
        return 0;
    }
}

extern "C" int vitrail_farthest(const float* points, long clouds, long size, long count, long start, int64_t* chosen,
                                int threads) {
    int enough = 1;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (clouds > 1) reduction(& : enough)
    for (long cloud = 0; cloud < clouds; cloud++)
        enough &= with_memory([&] {
            Farthest(points + 3 * size * cloud, size).choose(count, start, chosen + count * cloud);
        });
    return enough;
}

extern "C" int vitrail_nearest(const float* points, const float* queries, long clouds, long size, long asked, int k,
                               int64_t* index, float* distances, int threads) {
    return with_memory([&] {
        for (long cloud = 0; cloud < clouds; cloud++) {
            const Tree tree(points + 3 * size * cloud, size);
            const long runs = (asked + 63) / 64;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
            for (long run = 0; run < runs; run++) {
                static thread_local std::vector<Neighbor> found;
                found.resize(k);
                for (long i = run * 64; i < std::min(asked, run * 64 + 64); i++) {
                    const long place = asked * cloud + i;
                    nearest(tree, queries + 3 * place, k, found.data());
                    for (int j = 0; j < k; j++)
                        index[place * k + j] = found[j].index, distances[place * k + j] = found[j].distance;
                }
            }
        }
    });
}

// `index` holds the balls of all radii one after the other for each query; `counts` is (queries, radii).
extern "C" int vitrail_balls(const float* points, const float* queries, long clouds, long size, long asked, int radii,
                             const float* reaches, const int64_t* rooms, int64_t* index, int64_t* counts,
                             int threads) {
    const long total = std::accumulate(rooms, rooms + radii, 0l);
    return with_memory([&] {
        for (long cloud = 0; cloud < clouds; cloud++) {
            const Tree tree(points + 3 * size * cloud, size);
            const long runs = (asked + 63) / 64;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
            for (long run = 0; run < runs; run++) {
                static thread_local std::vector<int32_t> found;
                static thread_local std::vector<Ball> balls;
                found.resize(total);
                for (long i = run * 64; i < std::min(asked, run * 64 + 64); i++) {
                    const long place = asked * cloud + i;
                    balls.clear();
                    for (long j = 0, from = 0; j < radii; from += rooms[j++])
                        balls.push_back({reaches[j], (int)rooms[j], 0, found.data() + from});
                    fill_balls(tree, queries + 3 * place, balls);
                    for (long j = 0, from = 0; j < radii; from += rooms[j++])
                        write_ball(tree, queries + 3 * place, balls[j], index + place * total + from,
                                   counts + place * radii + j);
                }
            }
        }
    });
}
