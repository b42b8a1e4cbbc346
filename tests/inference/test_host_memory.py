"""Freed memory that a run keeps."""

from vitrail.machine.host_memory import disable_malloc_trim


def test_malloc_settings_apply_to_glibc_only(monkeypatch):
    said: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, what: int, value: int) -> int:
            said.append((what, value))
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    assert (
        disable_malloc_trim() and [what for what, _ in said] == [-3, -1] and min(value for _, value in said) > 1 << 30
    )
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as musl
    assert not disable_malloc_trim()
