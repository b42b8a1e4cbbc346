"""`vitrail models`: the catalogue, and what one variant is made of and costs."""

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any

import tyro

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError

EXAMPLES = """
vitrail models                                  # every variant
vitrail models 'swin*'                          # those that match a pattern
vitrail models swin_tiny_patch4_window7_224     # one, with its config and cost
vitrail models swin_tiny_patch4_window7_224 --set num_classes=10 image_size=448
vitrail models 'vit*' --json | jq '.[].name'
"""


@dataclass(frozen=True)
class Models:
    """List the models, or show one.

    The list tells parameters, GMACs (10^9 multiply-adds a picture, attention included) and the published top-1. A name
    alone shows its config, its cost, the evaluation protocol that its weights expect, and what is published about it.
    """

    pattern: tyro.conf.Positional[str] = "*"
    """A name, a part of one, a family, or a shell pattern such as 'swin*' (quote it, or the shell may fill it in)."""
    set: tuple[str, ...] = ()
    """Fields of one model's config to replace before it is counted, as name=value: --set num_classes=10."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """Print the table, or the one model."""
        from vitrail.models import list_models

        names = list_models(self.pattern) or _containing(self.pattern)
        if names == [self.pattern]:
            return self._show(self.pattern)
        if self.set:
            raise VitrailError(f"--set changes one model, and '{self.pattern}' is {len(names)}. Name one of them.")
        return self._list(names)

    def _list(self, names: list[str]) -> int:
        rows = [_row(name) for name in names]
        if self.json:
            print(json.dumps(rows, indent=2))
            return 0
        columns = ["name", "family", "pixels", "params", "GMACs", "top-1"]
        cells = [
            [
                row["name"],
                row["family"],
                str(row["size"]),
                "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f}M",
                "" if row["gmacs"] is None else f"{row['gmacs']:.2f}",
                "" if row["top1"] is None else f"{row['top1']:.2f}",
            ]
            for row in rows
        ]
        print_table(columns, cells, right=columns[2:])
        return 0

    def _show(self, name: str) -> int:
        from vitrail.models.published import PUBLISHED

        known = PUBLISHED.get(name)
        facts = {**_counted(name, self.set), "published": None if known is None else known._asdict()}
        if self.json:
            print(json.dumps(facts, indent=2))
        else:
            _print(facts, self.set)
        return 0


def _row(name: str) -> dict[str, Any]:
    from vitrail.models import family_of, make_config
    from vitrail.models.published import PUBLISHED

    known = PUBLISHED.get(name)
    parameters, gmacs, top1 = (known.parameters, known.gmacs, known.top1) if known else (*_sizes(name), None)
    return {
        "name": name,
        "family": family_of(name),
        "size": make_config(name).preprocess.size,
        "parameters": parameters,
        "gmacs": gmacs,
        "top1": top1,
    }


def _sizes(name: str) -> tuple[int, float] | tuple[None, None]:
    """Count what a variant of the user's own costs, or leave it open where that fails: shown alone, it says why."""
    from vitrail.lab.cost import count_macs, count_parameters

    try:
        return count_parameters(name), round(count_macs(name) / 1e9, 3)
    except VitrailError:
        return None, None


def _counted(name: str, changes: tuple[str, ...]) -> dict[str, Any]:
    """Build the variant without memory, and count."""
    import torch

    from vitrail.lab.cost import count_macs, count_parameters
    from vitrail.models import create_model, family_of
    from vitrail.training.config import TrainConfig

    with torch.device("meta"):
        model = create_model(name, **TrainConfig(set=changes).model_overrides())
    config = asdict(model.config)
    return {
        "name": name,
        "family": family_of(name),
        "parameters": count_parameters(model),
        "multiply_adds": count_macs(model),
        "preprocess": config.pop("preprocess"),
        "config": config,
    }


def _print(facts: dict[str, Any], changes: tuple[str, ...]) -> None:
    name, published, config = facts["name"], facts["published"], facts["config"]
    print(" ".join([name, *changes]))
    print(f"  family         {facts['family']}")
    print(f"  parameters     {facts['parameters']:,}")
    print(f"  multiply-adds  {facts['multiply_adds'] / 1e9:.3f} G at {facts['preprocess']['size']} pixels")
    print(f"  evaluation     {_protocol(facts['preprocess'])}")
    told = []
    if published and published["top1"]:
        told.append(f"{published['top1']} % top-1 on ImageNet-1k ({published['weights']}, timm)")
    if published and published["note"]:
        told.append(published["note"])
    for heading, line in zip(["published", ""], told, strict=False):
        print(f"  {heading:<13}  {line}")
    print("  config")
    width = max(map(len, config))
    for field, value in config.items():
        print(f"    {field:<{width}}  {value}")
    arguments, flags = _again(name, changes)
    print(f"\nIn Python: model = vitrail.create_model({arguments})")
    print(f"To train:  vitrail train FOLDER --model {flags}")


def _again(name: str, changes: tuple[str, ...]) -> tuple[str, str]:
    """Return the arguments of `create_model`, and the flags of `vitrail train`, that make a changed variant again."""
    from vitrail.training.config import TrainConfig

    values = TrainConfig(set=changes).model_overrides()
    arguments = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in ({"num_classes": 10} | values).items())])
    # What a training takes from the data or has a flag for is not among the fields that it sets.
    size = [f"--imgsz {values['image_size']}"] if "image_size" in values else []
    fields = [change for change in changes if change.partition("=")[0] not in ("image_size", "num_classes")]
    return arguments, " ".join([name, *size, *(["--set", *fields] if fields else [])])


def _containing(text: str) -> list[str]:
    """Take a word that is no name for a family or a part of a name; one that is neither gets the nearest names."""
    from vitrail.errors import unknown
    from vitrail.models import HINT, family_of, list_models

    names = list_models()
    if family := [name for name in names if family_of(name) == text.lower()]:
        return family
    found = [name for name in names if text.lower() in name.lower() or fnmatch(family_of(name), text.lower())]
    if not found:
        raise unknown("model", text, names, hint=HINT)
    return found


def _protocol(preprocess: dict[str, Any]) -> str:
    from vitrail.preprocess import Preprocess

    p = Preprocess.from_dict(preprocess)
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    return f"short side to {p.resize} ({p.interpolation}), centre {p.size} x {p.size}, mean {mean}, std {std}"
