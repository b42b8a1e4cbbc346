// Threads that stay in one parallel region for many short phases, with a barrier after each.
//
// A decoding step has about 80 phases of some 10 us to 1 ms. Opening a parallel region for each costs more than the
// shortest of them.

#pragma once

#include <atomic>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <sched.h>

class Team {
public:
    // Phases whose items are taken by a counter: three counters by turns, since one is reset while two may be in use.
    std::atomic<long> counters[3];
    int threads = 1;

    Team() : arrived(0), phase(0) {
        for (auto& counter : counters) counter = 0;
    }

    // Wait for all threads of the team. Spins, since phases are short; a thread that waits long gives its core away.
    void barrier() {
        if (threads == 1) return;
        const int now = phase.load(std::memory_order_relaxed);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
            arrived.store(0, std::memory_order_relaxed);
            phase.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase.load(std::memory_order_acquire) == now; spins++) {
            if (spins > 2000) {
                sched_yield();
            } else {
#if defined(__x86_64__)
                _mm_pause();
#endif
            }
        }
    }

private:
    std::atomic<int> arrived, phase;
};

// One thread of a team.
struct Member {
    Team& team;
    int index;
    long turns = 0;

    // `work(i)` for each of `items`, in runs of `run`, by whichever thread is free; then a barrier.
    template <class Work>
    void each(long items, long run, Work&& work) {
        std::atomic<long>& next = team.counters[turns % 3];
        // All threads have left the phase before the last one, whose counter serves after the next.
        if (index == 0) team.counters[(turns + 2) % 3].store(0, std::memory_order_relaxed);
        turns++;
        for (long at; (at = next.fetch_add(run, std::memory_order_relaxed)) < items;)
            for (long i = at; i < std::min(items, at + run); i++) work(i);
        team.barrier();
    }
};

// Run `work(member)` in each thread of a team.
template <class Work>
static void run_team(int threads, Work&& work) {
    Team team;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        team.threads = omp_get_num_threads();
        Member member{team, omp_get_thread_num()};
        work(member);
    }
#else
    Member member{team, 0};
    work(member);
#endif
}
