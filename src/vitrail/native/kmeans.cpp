// Exports for native/quantized.py: exact k-means of numbers.
// build: -ffp-contract=off

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

// Sums of the first n points: of weights, of weights times values, of weights times squares.
struct Prefix {
    std::vector<double> w, wx, wxx;

    Prefix(const double* x, const double* weights, long n) : w(n + 1), wx(n + 1), wxx(n + 1) {
        for (long i = 0; i < n; i++) {
            const double once = weights[i] * x[i];
            w[i + 1] = w[i] + weights[i];
            wx[i + 1] = wx[i] + once;
            wxx[i + 1] = wxx[i] + once * x[i];
        }
    }
    // Sum of weighted squared distances of points i to j to their mean.
    double cost(long i, long j) const {
        const double weight = w[j + 1] - w[i], sum = wx[j + 1] - wx[i];
        return weight > 0 ? std::max(0.0, wxx[j + 1] - wxx[i] - sum * sum / weight) : 0.0;
    }
};

// Best start of the last cluster of points 0 to j, for j in [from, to]; it never decreases with j.
static void last_starts(const Prefix& sums, const double* before, double* cost, int32_t* start, long from, long to,
                        long low, long high) {
    while (from <= to) {
        const long j = (from + to) / 2, last = std::min(high, j);
        double best = 0;
        long chosen = -1;
        for (long i = low; i <= last; i++) {
            const double value = (i ? before[i - 1] : 0.0) + sums.cost(i, j);
            if (chosen < 0 || value < best) best = value, chosen = i;
        }
        cost[j] = best;
        start[j] = (int32_t)chosen;
        last_starts(sums, before, cost, start, from, j - 1, low, chosen);
        from = j + 1, low = chosen;
    }
}

// Means of the k clusters of ascending points; of fewer clusters the last mean is repeated. 0 if memory is short.
extern "C" int vitrail_kmeans(const double* x, const double* weights, long n, int k, double* centers) {
    try {
        const Prefix sums(x, weights, n);
        std::vector<double> before(n), cost(n);
        std::vector<int32_t> starts((size_t)k * n);
        for (long j = 0; j < n; j++) cost[j] = sums.cost(0, j);
        for (int c = 1; c < k; c++) {
            std::swap(before, cost);
            last_starts(sums, before.data(), cost.data(), &starts[(size_t)c * n], 0, n - 1, 0, n - 1);
        }
        std::vector<double> found;
        for (long end = n - 1, c = k - 1; end >= 0 && c >= 0; c--) {
            const long begin = c ? starts[(size_t)c * n + end] : 0;
            const double weight = sums.w[end + 1] - sums.w[begin];
            double mean = weight > 0 ? (sums.wx[end + 1] - sums.wx[begin]) / weight : 0;
            if (!(weight > 0)) {
                for (long i = begin; i <= end; i++) mean += x[i];
                mean /= end - begin + 1;
            }
            found.push_back(mean);
            end = begin - 1;
        }
        std::reverse(found.begin(), found.end());
        for (int c = 0; c < k; c++) centers[c] = found[std::min<size_t>(c, found.size() - 1)];
        return 1;
    } catch (const std::bad_alloc&) {
        return 0;
    }
}
