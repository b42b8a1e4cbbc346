"""`vitrail models`: the catalogue, and the config and cost of one variant."""

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatch, fnmatchcase
from typing import Any

import tyro

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError, unknown

EXAMPLES = """
vitrail models                                  # every variant
vitrail models 'swin*'                          # those that match a pattern
vitrail models swin_tiny_patch4_window7_224     # one, with its config and cost
vitrail models swin_tiny_patch4_window7_224 --set num_classes=10 image_size=448
vitrail models --family nat                     # one architecture: variants, accuracy, protocol, source
vitrail models 'vit*' --json | jq '.[].name'
"""


@dataclass(frozen=True)
class Models:
    """List the models, or show one.

    The list shows parameters, GMACs (10^9 multiply-adds per image, attention included) and the published top-1. One
    name shows its config, its cost, its evaluation protocol and its published figures.
    """

    pattern: tyro.conf.Positional[str] = "*"
    """A name, a part of one, a family, or a shell pattern such as 'swin*' (quote it, or the shell may fill it in)."""
    set: tuple[str, ...] = ()
    """Fields of one model's config to replace before it is counted, as name=value: --set num_classes=10."""
    family: str | None = None
    """An architecture: what it changed, and of each variant size, cost, accuracy, protocol and source."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """Print the table, or the one model."""
        if self.family is not None:
            from vitrail.cli.model_family import show_family

            return show_family(self.family, self.json)
        from vitrail.models import HINT, catalogue
        from vitrail.models.published import PUBLISHED

        if self.pattern in PUBLISHED:
            return self._show(self.pattern)
        refusal = None
        try:
            known = catalogue()
        except VitrailError as error:  # a faulty file of the user's own takes the others from nobody
            refusal, known = error, {name: figures.family for name, figures in PUBLISHED.items()}
        if self.pattern in known:
            return self._show(self.pattern)
        names = [name for name in known if fnmatchcase(name, self.pattern)] or _containing(self.pattern, known)
        if not names:
            raise refusal or unknown("model", self.pattern, known, hint=HINT)
        if self.set:
            raise VitrailError(f"--set changes one model, and '{self.pattern}' is {len(names)}. Name one of them.")
        self._list(names)
        if refusal is not None:
            raise refusal
        return 0

    def _list(self, names: list[str]) -> None:
        rows = [_row(name) for name in names]
        if self.json:
            print(json.dumps(rows, indent=2))
            return
        columns = ["name", "family", "pixels", "params", "GMACs", "top-1"]
        reasons = any(row["uncounted"] for row in rows)
        cells = [
            [
                row["name"],
                row["family"],
                "" if row["size"] is None else str(row["size"]),
                "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f}M",
                "" if row["gmacs"] is None else f"{row['gmacs']:.2f}",
                "" if row["top1"] is None else f"{row['top1']:.2f}",
                *([row["uncounted"] or ""] if reasons else []),
            ]
            for row in rows
        ]
        print_table(columns + ["not counted"] * reasons, cells, right=columns[2:])

    def _show(self, name: str) -> int:
        facts = _facts(name, self.set)
        if self.json:
            print(json.dumps(facts, indent=2))
        else:
            _print(facts, self.set)
        return 0


def _row(name: str) -> dict[str, Any]:
    from vitrail.models.published import PUBLISHED

    if name not in PUBLISHED:
        return _own_row(name)
    known = PUBLISHED[name]
    return {
        "name": name,
        "family": known.family,
        "size": known.pixels,
        "parameters": known.parameters,
        "gmacs": known.gmacs,
        "top1": known.top1,
        "uncounted": None,
    }


def _own_row(name: str) -> dict[str, Any]:
    """Return the row of a custom variant; an exception in its code is reported in the row."""
    from vitrail.models import family_of, find
    from vitrail.models.custom import own_fault

    row = {"name": name, "family": family_of(name), "size": None, "parameters": None, "gmacs": None}
    reason = None
    try:
        row["size"] = find(name).VARIANTS[name].preprocess.size
        row["parameters"], macs, uncounted = _counts(_on_meta(name))
        row["gmacs"] = None if macs is None else round(macs / 1e9, 3)
        reason = uncounted and uncounted.partition("\n")[0]
    except Exception as error:  # noqa: BLE001 - anything can go wrong in code that is not ours, and the list is of all models
        told = isinstance(error, VitrailError)
        reason = str(error) if told else own_fault(error) or f"{type(error).__name__}: {error}"
    return {**row, "top1": None, "uncounted": reason}


def _on_meta(name: str, **overrides: Any) -> Any:
    """Build a variant on the meta device."""
    import torch

    from vitrail.models import create_model

    with torch.device("meta"):
        return create_model(name, **overrides)


def _counts(model: Any) -> tuple[int, int | None, str | None]:
    """Return parameters and multiply-adds, or the reason why the latter cannot be counted."""
    from vitrail.inference.flops import count_parameters, counted_macs

    macs, reason = counted_macs(model)
    return count_parameters(model), macs, reason or None


def _facts(name: str, changes: tuple[str, ...]) -> dict[str, Any]:
    from vitrail.models import family_of, make_config
    from vitrail.models.published import PUBLISHED

    known, reason = PUBLISHED.get(name), None
    if known and not changes:
        config, parameters, macs = make_config(name), known.parameters, known.multiply_adds
    else:
        from vitrail.training.config import parse_overrides

        model = _on_meta(name, **parse_overrides(changes))
        config, (parameters, macs, reason) = model.config, _counts(model)
    values = asdict(config)
    return {
        "name": name,
        "family": family_of(name),
        "parameters": parameters,
        "multiply_adds": macs,
        "uncounted": reason,
        "preprocess": values.pop("preprocess", None),
        "config": values,
        "published": None if known is None else {**known._asdict(), "gmacs": known.gmacs},
        "weights": _hosted(name),
    }


def _hosted(name: str) -> dict[str, Any] | None:
    """Return the public weights of a variant, with the commit if this machine has resolved it."""
    from vitrail.models.published.hosted import HOSTED
    from vitrail.weights.pretrained import kept_commit

    return {**HOSTED[name]._asdict(), "revision": kept_commit(name)} if name in HOSTED else None


def _print(facts: dict[str, Any], changes: tuple[str, ...]) -> None:
    name, published, config = facts["name"], facts["published"], facts["config"]
    print(" ".join([name, *changes]))
    print(f"  family         {facts['family']}")
    print(f"  parameters     {facts['parameters']:,}")
    macs = facts["multiply_adds"]
    at = f"{facts['preprocess']['size']} pixels" if facts["preprocess"] else f"{published['tokens']} tokens"
    print(f"  multiply-adds  {'unknown' if macs is None else f'{macs / 1e9:.3f} G at {at}'}")
    if facts["preprocess"]:
        print(f"  evaluation     {_protocol(facts['preprocess'])}")
    told = []
    if published and published["top1"]:
        told.append(f"{published['top1']} % top-1 on ImageNet-1k ({published['weights']}, timm)")
    if published and published["note"]:
        told.append(published["note"])
    for heading, line in zip(["published", ""], told, strict=False):
        print(f"  {heading:<13}  {line}")
    for heading, line in zip(["weights", ""], _weight_lines(facts["weights"]), strict=False):
        print(f"  {heading:<13}  {line}")
    print("  config")
    width = max(map(len, config))
    for field, value in config.items():
        print(f"    {field:<{width}}  {value}")
    arguments, flags = _again(name, changes)
    print(f"\nIn Python: model = vitrail.create_model({arguments})")
    if facts["preprocess"]:
        print(f"To train:  vitrail train FOLDER --model {flags}")
    if facts["uncounted"]:
        print(f"\n{facts['uncounted']}")


def _weight_lines(hosted: dict[str, Any] | None) -> list[str]:
    if hosted is None:
        return ["none on the hub that are known; give files with --weights"]
    commit = f"@{hosted['revision']}" if hosted["revision"] else " (its commit is resolved at the first download)"
    head = "" if hosted["classes"] != 0 else ", without a head"
    return [f"hf:{hosted['hub']}{commit}", f"licence {hosted['licence']}{head}; get them with --weights pretrained"]


def _again(name: str, changes: tuple[str, ...]) -> tuple[str, str]:
    """Return the arguments of `create_model` and the flags of `vitrail train` that reproduce a changed variant."""
    from vitrail.models import task_of
    from vitrail.training.config import parse_overrides

    values = parse_overrides(changes)
    given = ({"num_classes": 10} if task_of(name) == "classify" else {}) | values
    arguments = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in given.items())])
    # Fields that training infers from the data, or has a flag for, are not set with --set.
    size = [f"--imgsz {values['image_size']}"] if "image_size" in values else []
    fields = [change for change in changes if change.partition("=")[0] not in ("image_size", "num_classes")]
    return arguments, " ".join([name, *size, *(["--set", *fields] if fields else [])])


def _containing(text: str, known: dict[str, str]) -> list[str]:
    """Match text that is no variant as a family, a part of a name or a pattern of families."""
    if family := [name for name in known if known[name] == text.lower()]:
        return family
    return [name for name in known if text.lower() in name.lower() or fnmatch(known[name], text.lower())]


def _protocol(preprocess: dict[str, Any]) -> str:
    from vitrail.preprocess import Preprocess

    p = Preprocess.from_dict(preprocess)
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    return f"{p.resizing()}, centre {p.size} x {p.size}, mean {mean}, std {std}"
