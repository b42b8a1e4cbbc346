"""Kept memory: taken again only when nobody holds it, and never more than was allowed."""

import torch

from vitrail.native.allocator import PAGE, CachingAllocator

NUMBERS = PAGE // 4  # of fp32 in one page


def test_memory_in_use_is_never_reused() -> None:
    pool = CachingAllocator()
    kept = []
    for value in range(4):
        x = pool.empty((NUMBERS,), torch.float32).fill_(value)
        kept.append(x.view(2, -1)[1])  # a view keeps the piece as its tensor does
        del x
    assert [set(x.tolist()) for x in kept] == [{0.0}, {1.0}, {2.0}, {3.0}]
    assert len(pool.pieces) == 4
    kept.clear()
    again = [pool.empty((NUMBERS,), torch.float32) for _ in range(4)]
    assert len(pool.pieces) == 4 and len({x.data_ptr() for x in again}) == 4


def test_the_cache_is_bounded() -> None:
    pool = CachingAllocator(most=3 * PAGE)
    held = [pool.empty((NUMBERS,), torch.float32) for _ in range(3)]
    beyond = pool.empty((NUMBERS,), torch.float32)  # from the allocator
    assert sum(map(len, pool.pieces)) == 3 * PAGE and beyond.shape == (NUMBERS,)
    held.clear()
    assert pool.empty((3 * NUMBERS,), torch.float32).shape == (3 * NUMBERS,)  # the free ones made room
    assert sum(map(len, pool.pieces)) == 3 * PAGE and len(pool.pieces) == 1


def test_small_memory_is_left_to_the_allocator() -> None:
    pool = CachingAllocator()
    assert pool.empty((2, 3), torch.bfloat16).shape == (2, 3) and pool.empty((0, 5), torch.float32).numel() == 0
    assert pool.pieces == []


def test_small_requests_do_not_take_large_blocks() -> None:
    pool = CachingAllocator()
    large = pool.empty((16 * NUMBERS,), torch.float32)
    del large
    pool.empty((NUMBERS,), torch.float32)
    assert sorted(map(len, pool.pieces)) == [PAGE, 16 * PAGE]
