"""Freed memory that a run keeps."""

from vitrail.training.memory import keep_freed


def test_kept_memory_is_asked_of_the_c_library_alone(monkeypatch):
    said: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, what: int, value: int) -> int:
            said.append((what, value))
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    assert keep_freed() and [what for what, _ in said] == [-3, -1] and min(value for _, value in said) > 1 << 30
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as musl
    assert not keep_freed()
