// Exports for native/points.py: farthest-point sampling, nearest neighbors and ball query.
// build: -ffp-contract=off

#include <new>

#include "arguments.h"
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
    search(
        tree, p, [&] { return widest; }, skip,
        [&](long leaf) {
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

// Arguments of `vitrail_farthest`.
struct FarthestArgs {
    const float* points;  // (clouds, size, 3)
    long clouds, size, count, start;
    int64_t* chosen;  // (clouds, count)
    int threads;
};

// Arguments of `vitrail_nearest`.
struct NearestArgs {
    const float* points;   // (clouds, size, 3)
    const float* queries;  // (clouds, asked, 3)
    long clouds, size, asked;
    int k;
    int64_t* index;    // (clouds, asked, k)
    float* distances;  // (clouds, asked, k), squared
    int threads;
};

// Arguments of `vitrail_balls`.
struct BallsArgs {
    const float* points;   // (clouds, size, 3)
    const float* queries;  // (clouds, asked, 3)
    long clouds, size, asked;
    int radii;
    const float* reaches;  // (radii), squared
    const int64_t* rooms;  // (radii): most points of a ball
    int64_t* index;        // (clouds, asked, rooms of all radii)
    int64_t* counts;       // (clouds, asked, radii)
    int threads;
};

extern "C" {
SIZE_OF(FarthestArgs)
SIZE_OF(NearestArgs)
SIZE_OF(BallsArgs)

int vitrail_farthest(const FarthestArgs& a) {
    int enough = 1;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads) if (a.clouds > 1) reduction(& : enough)
    for (long cloud = 0; cloud < a.clouds; cloud++)
        enough &= with_memory([&] {
            Farthest(a.points + 3 * a.size * cloud, a.size).choose(a.count, a.start, a.chosen + a.count * cloud);
        });
    return enough;
}

int vitrail_nearest(const NearestArgs& a) {
    const int k = a.k;
    return with_memory([&] {
        for (long cloud = 0; cloud < a.clouds; cloud++) {
            const Tree tree(a.points + 3 * a.size * cloud, a.size);
            const long runs = (a.asked + 63) / 64;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
            for (long run = 0; run < runs; run++) {
                static thread_local std::vector<Neighbor> found;
                found.resize(k);
                for (long i = run * 64; i < std::min(a.asked, run * 64 + 64); i++) {
                    const long place = a.asked * cloud + i;
                    nearest(tree, a.queries + 3 * place, k, found.data());
                    for (int j = 0; j < k; j++)
                        a.index[place * k + j] = found[j].index, a.distances[place * k + j] = found[j].distance;
                }
            }
        }
    });
}

// `index` holds the balls of all radii one after the other for each query.
int vitrail_balls(const BallsArgs& a) {
    const int radii = a.radii;
    const long total = std::accumulate(a.rooms, a.rooms + radii, 0l);
    return with_memory([&] {
        for (long cloud = 0; cloud < a.clouds; cloud++) {
            const Tree tree(a.points + 3 * a.size * cloud, a.size);
            const long runs = (a.asked + 63) / 64;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
            for (long run = 0; run < runs; run++) {
                static thread_local std::vector<int32_t> found;
                static thread_local std::vector<Ball> balls;
                found.resize(total);
                for (long i = run * 64; i < std::min(a.asked, run * 64 + 64); i++) {
                    const long place = a.asked * cloud + i;
                    balls.clear();
                    for (long j = 0, from = 0; j < radii; from += a.rooms[j++])
                        balls.push_back({a.reaches[j], (int)a.rooms[j], 0, found.data() + from});
                    fill_balls(tree, a.queries + 3 * place, balls);
                    for (long j = 0, from = 0; j < radii; from += a.rooms[j++])
                        write_ball(tree, a.queries + 3 * place, balls[j], a.index + place * total + from,
                                   a.counts + place * radii + j);
                }
            }
        }
    });
}
}
