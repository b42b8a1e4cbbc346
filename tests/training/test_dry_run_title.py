"""The line with the title in a dry run."""

from collections.abc import Callable
from typing import Any

from vitrail.training.dry_run import dry_run


def test_a_dry_run_names_no_folder_because_it_writes_none(tiny: Callable[..., Any]) -> None:
    assert " on digits: " in (title := dry_run(tiny()).title) and "into" not in title
