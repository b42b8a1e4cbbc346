"""The ledger of errata: its page, its tests, and the details that have no test elsewhere."""

import ast
from pathlib import Path

import pytest
import torch

from vitrail.models import create_model, family_of, list_models, make_config
from vitrail.models.errata import errata, to_markdown

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_from_the_ledger():
    message = "run: python -m vitrail.models.errata > docs/errata.md"
    assert (ROOT / "docs" / "errata.md").read_text() == to_markdown(), message


@pytest.mark.parametrize("entry", errata(), ids=lambda entry: f"{entry.family}: {entry.detail}")
def test_each_entry_has_a_family_and_a_test(entry):
    assert entry.family in {family_of(name) for name in list_models()}
    path, _, function = entry.test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert len(entry.sources) > 1 and all(": " in source for source in entry.sources)


def test_depths_of_the_larger_swins():
    for size in ("small", "base", "large"):
        assert make_config(f"swin_{size}_patch4_window7_224").depths == (2, 2, 18, 2)


def test_rows_of_the_relative_position_table():
    model = create_model("swin_tiny_patch4_window7_224", depths=(1,), num_heads=(3,), window_size=7)
    assert model.backbone.stages[0].blocks[0].token_mixer.position.table.shape == (13**2, 3)


def test_positions_are_added():
    model = create_model("vit_tiny_patch16_224", depth=1, dim=24, image_size=32)
    step = model.backbone.embedding.steps[1]
    x, grid = torch.randn(2, 5, 24), step.grid
    torch.testing.assert_close(step(x, grid)[0], x + step.table)


def test_randformer_lists_no_accuracy():
    from vitrail.models.published import PUBLISHED

    randformers = [figures for name, figures in PUBLISHED.items() if name.startswith("randformer")]
    assert len(randformers) == 5
    assert all(figures.top1 is None and "frozen" in figures.note for figures in randformers)
