"""`vitrail models`: the catalogue, and what one variant is made of and costs."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import tyro

from vitrail.cli.table import print_table

EXAMPLES = """
vitrail models                                  # every variant
vitrail models 'swin*'                          # those that match a pattern
vitrail models swin_tiny_patch4_window7_224     # one, with its config and cost
vitrail models 'vit*' --json | jq '.[].name'
"""


@dataclass(frozen=True)
class Models:
    """List the models, or show one.

    A name shows its config, parameters, multiply-adds (attention included, one is two operations) and the evaluation
    protocol that its weights expect.
    """

    pattern: tyro.conf.Positional[str] = "*"
    """A name, or a shell pattern such as 'swin*' (quote it, or the shell may fill it in)."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """Print the table, or the one model."""
        from vitrail.models import list_models

        names = list_models(self.pattern) or _containing(self.pattern)
        return self._show(self.pattern) if names == [self.pattern] else self._list(names)

    def _list(self, names: list[str]) -> int:
        rows = [_summary(name) for name in names]
        if self.json:
            print(json.dumps(rows, indent=2))
            return 0
        cells = [
            [row["name"], row["family"], f"{row['parameters'] / 1e6:.2f} M", str(row["size"]), str(row["classes"])]
            for row in rows
        ]
        columns = ["name", "family", "parameters", "pixels", "classes"]
        print_table(columns, cells, right=["parameters", "pixels", "classes"])
        return 0

    def _show(self, name: str) -> int:
        from vitrail.lab.cost import count_macs
        from vitrail.models import make_config

        config = asdict(make_config(name))
        preprocess = config.pop("preprocess")
        facts = {**_summary(name), "multiply_adds": count_macs(name), "preprocess": preprocess, "config": config}
        if self.json:
            print(json.dumps(facts, indent=2))
            return 0
        print(name)
        print(f"  family         {facts['family']}")
        print(f"  parameters     {facts['parameters']:,}")
        print(f"  multiply-adds  {facts['multiply_adds'] / 1e9:.3f} G at {facts['size']} pixels")
        print(f"  evaluation     {_protocol(preprocess)}")
        print("  config")
        width = max(map(len, config))
        for field, value in config.items():
            print(f"    {field:<{width}}  {value}")
        print(f"\nIn Python: model = vitrail.create_model({name!r}, num_classes=10)")
        print(f"To train:  vitrail train data=FOLDER model={name}")
        return 0


def _summary(name: str) -> dict[str, Any]:
    from vitrail.lab.cost import count_parameters
    from vitrail.models import family_of, make_config

    config = make_config(name)
    return {
        "name": name,
        "family": family_of(name),
        "parameters": count_parameters(name),
        "size": config.preprocess.size,
        "classes": config.num_classes,
    }


def _containing(text: str) -> list[str]:
    """Take a word that is no name for a part of one; a word in none is an error with the nearest names."""
    from vitrail.errors import unknown
    from vitrail.models import list_models

    found = [name for name in list_models() if text.lower() in name.lower()]
    if not found:
        raise unknown("model", text, list_models(), hint="See them all with: vitrail models")
    return found


def _protocol(preprocess: dict[str, Any]) -> str:
    from vitrail.preprocess import Preprocess

    p = Preprocess.from_dict(preprocess)
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    return f"short side to {p.resize} ({p.interpolation}), centre {p.size} x {p.size}, mean {mean}, std {std}"
