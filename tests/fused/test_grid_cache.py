"""GridCache of grids under several threads, which a form on a server is asked by."""

from vitrail.fused.grid_cache import MAX_GRIDS, GridCache


def test_a_concurrent_entry_is_not_stored_twice() -> None:
    """Another thread may fill the tables while this one makes its own: the room holds, and all later ones too."""
    tables: GridCache[int, int] = GridCache()

    def make() -> int:
        for other in range(1, MAX_GRIDS + 1):
            tables.of(other, lambda other=other: other)
        return 0

    assert tables.of(0, make) == 0
    assert len(tables) == MAX_GRIDS and tables[0] == 0
    for later in range(20, 40):
        tables.of(later, lambda later=later: later)
    assert list(tables) == list(range(40 - MAX_GRIDS, 40))


def test_a_concurrently_evicted_table_is_returned() -> None:
    class Busy(GridCache[int, int]):
        """Another thread fills them between any two looks."""

        def __contains__(self, grid: object) -> bool:
            found = super().__contains__(grid)
            self.pop(grid, None)  # pyright: ignore[reportArgumentType, reportCallIssue]
            return found

    tables = Busy({0: 0})
    assert tables.of(0, lambda: 0) == 0
