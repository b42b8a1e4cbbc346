"""Every vision family has every proof, or a stated reason why not."""

import pytest
from proofs import PARITY, PROOFS, REASONS, TWINS, found, table, vision_families  # pyright: ignore

FAMILIES = vision_families()


@pytest.fixture(scope="module")
def have() -> dict[str, set[str]]:
    return found()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_every_proof_or_a_reason(family: str, have: dict[str, set[str]]) -> None:
    lacking = [proof for proof in PROOFS if family not in have[proof] and (family, proof) not in REASONS]
    assert lacking == [], f"{family}: add the row, or a reason to REASONS of tests/house/proofs.py"


def test_reasons_are_current(have: dict[str, set[str]]) -> None:
    needless = [(family, proof) for family, proof in REASONS if family in have[proof] or family not in FAMILIES]
    assert needless == [], "they have that proof now, or are no vision family"


def test_named_tests_exist_and_are_of_families(have: dict[str, set[str]]) -> None:
    assert set(TWINS) <= have["twin"] and set(PARITY) <= have["parity"], "a test was renamed"
    assert set(TWINS) | set(PARITY) <= set(FAMILIES)


def test_a_missing_proof_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.delitem(REASONS, ("sasa", "parity"))
    table(lines.append)
    row = next(line for line in lines if line.startswith("sasa "))
    assert row.split() == ["sasa", "yes", "yes", "MISSING", "yes", "yes", "yes"]
