"""Faults in the code of one's own: said with file and line, and they take nothing else away."""

import json
import os
from pathlib import Path

import pytest

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.models import catalogue, create_model, family_of, list_models
from vitrail.models.published import PUBLISHED

RECIPE = Path(__file__).parents[2] / "recipes" / "linear_attention.py"
SIDE = "    side = -(-c.preprocess.size"
FEATURES = "elu(q) + 1, elu(k) + 1"


class Own:
    """Files made from the recipe, with a fault put in the place of a piece of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder, self._files = monkeypatch, folder, []

    def file(self, stem: str, piece: str, fault: str) -> str:
        text = RECIPE.read_text().replace('"linear_', f'"{stem}_')
        assert piece in text
        path = self._folder / f"{stem}.py"
        path.write_text(text.replace(piece, fault))
        self._files.append(str(path))
        self._patch.setenv("VITRAIL_MODELS", os.pathsep.join(self._files))
        line = next((n for n, row in enumerate(path.read_text().splitlines(), 1) if fault.splitlines()[0] in row), 0)
        return f"{path}:{line}: "


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Own:
    return Own(monkeypatch, tmp_path)


FAULTS = [
    (SIDE, "    side = nothing // 2 or -(-c.preprocess.size", "NameError: name 'nothing' is not defined"),
    (FEATURES, "elv(q) + 1, elu(k) + 1", "NameError: name 'elv' is not defined"),
    (FEATURES, "q[..., 1:], elu(k) + 1", "RuntimeError: "),
    ("Embedding(\n", "{}['there'] or Embedding(\n", "KeyError: 'there'"),
]


@pytest.mark.parametrize(("piece", "fault", "says"), FAULTS, ids=[says for _, _, says in FAULTS])
def test_errors_in_custom_code_name_the_line(own: Own, capsys, piece: str, fault: str, says: str) -> None:
    place = own.file("mine", piece, fault)
    assert main(["models", "mine_tiny"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "Traceback" not in told and len(told.splitlines()) <= 6
    assert says in told
    if says.startswith("RuntimeError"):  # it comes up in a later line of the same function
        assert place.partition(":")[0] in told
    else:
        assert place in told


def test_the_full_traceback_is_available(own: Own, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    place = own.file("mine", FEATURES, "elv(q) + 1, elu(k) + 1")
    monkeypatch.setenv("VITRAIL_TRACE", "1")
    assert main(["models", "mine_tiny"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and f"error: {place}" in told and "in count_macs" in told


def test_own_bugs_are_reported_as_bugs_with_a_custom_file(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    own.file("mine", FEATURES, FEATURES)
    monkeypatch.setattr("vitrail.cli.models._print", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as bug:
        main(["models", "vit_tiny_patch16_224"])
    assert "or in a file that VITRAIL_MODELS names" in bug.value.__notes__[0]


def test_broken_files_are_listed_with_their_reason(own: Own, capsys) -> None:
    places = [
        own.file(f"fault_{n}", piece, fault) + says for n, (piece, fault, says) in enumerate(FAULTS) if n in (0, 1, 3)
    ]
    own.file("nothing", "    return model\n", "    return None\n")
    own.file("asking", FEATURES, "(q if q.sum().item() > 0 else k), elu(k) + 1")
    own.file("good", FEATURES, FEATURES)
    assert main(["models", "*_tiny", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[f"fault_{n}_tiny"]["uncounted"] for n in (0, 1, 3)] == places
    assert "returns a NoneType" in rows["nothing_tiny"]["uncounted"]
    assert "depends on values" in rows["asking_tiny"]["uncounted"] and rows["asking_tiny"]["parameters"] == 5_717_416
    assert rows["good_tiny"]["uncounted"] is None and rows["good_tiny"]["gmacs"] > 1
    assert rows["nat_tiny"]["gmacs"] == PUBLISHED["nat_tiny"].gmacs


def test_a_broken_custom_file_does_not_hide_the_catalogue(own: Own, capsys) -> None:
    own.file("broken", "VARIANTS = {", "VARIANTS = {{")
    with pytest.raises(VitrailError, match=r"broken\.py: SyntaxError"):
        catalogue()
    create_model("vit_tiny_patch16_224", depth=1)
    assert family_of("nat_tiny") == "nat"
    assert main(["models", "nat"]) == 2
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[1:]] == [n for n in PUBLISHED if n.startswith("nat_")]
    assert told.err.startswith("error: VITRAIL_MODELS names") and "SyntaxError" in told.err


def test_shape_errors_are_reported_with_the_line(own: Own) -> None:
    own.file("mine", "        check_heads(dim, num_heads)\n", "        if dim % num_heads: raise ValueError('heads')\n")
    with pytest.raises(
        VitrailError, match=r"Cannot build mine_tiny with \{'num_heads': 5\}: .*mine.py:\d+: ValueError"
    ):
        create_model("mine_tiny", num_heads=5)


def test_listing_names_imports_no_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRAIL_MODELS", raising=False)
    monkeypatch.setattr("vitrail.models.import_module", lambda name: pytest.fail(name))
    assert list_models() == list(PUBLISHED) and family_of("swin_tiny_patch4_window7_224") == "swin"
