"""`vitrail models --family`: one architecture and its variants."""

import json
from typing import Any

from vitrail.cli.table import print_table
from vitrail.errors import unknown


def show_family(name: str, as_json: bool = False) -> int:
    """Print the changes of a family, and size, cost, accuracy, protocol and source of each variant.

    Args:
        name: module of the architecture, such as `nat`.
        as_json: print JSON instead of text.

    Raises:
        VitrailError: there is no such family.
    """
    from vitrail.models import FAMILIES
    from vitrail.report.family_tree import family_facts

    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    family, rows = family_facts(name), variant_rows(name)
    if as_json:
        print(json.dumps({**family._asdict(), "variants": rows}, indent=2))
        return 0
    origin = f"; from {' and '.join(family.parents)}" if family.parents else ""
    print(f"{family.title} ({family.year}{origin}): {family.change}\n")
    columns = ["name", "pixels", "params", "GMACs", "top-1", "protocol", "weights", "source"]
    cells = [
        [
            row["name"],
            "" if row["pixels"] is None else str(row["pixels"]),
            f"{row['parameters'] / 1e6:.2f}M",
            f"{row['gmacs']:.3f}",
            "" if row["top1"] is None else f"{row['top1']:.2f}",
            row["protocol"] or "",
            row["weights"] or "",
            row["source"],
        ]
        for row in rows
    ]
    print_table(columns, cells, right=columns[1:5])
    print(f"\n{_where(name, rows)}")
    return 0


def _where(family: str, rows: list[dict[str, Any]]) -> str:
    """Say where weights of a family are."""
    files = ", ".join(libraries(family))
    read = f"Files of {files} are read: vitrail convert." if files else ""
    if any(row["weights"] for row in rows):
        return f"Named weights are downloaded on first use: --weights pretrained. {read}".rstrip()
    if files:
        return f"No weights are named here. {read}"
    return "No other library's file is read; vitrail train makes your own weights."


def libraries(family: str) -> list[str]:
    """List the libraries whose checkpoints of a family are read; `official` is the authors' code.

    Example:
        >>> libraries("swin_v2"), libraries("sasa")
        (['timm', 'official', 'torchvision', 'huggingface'], [])
    """
    from vitrail.weights.formats import FORMATS

    return list(dict.fromkeys(each.name for each in FORMATS if family in each.families))


def variant_rows(family: str) -> list[dict[str, Any]]:
    """Return the figures of each variant of a family.

    Example:
        >>> len(variant_rows("nat")) > 1
        True
    """
    from vitrail.models.published import PUBLISHED
    from vitrail.models.published.hosted import HOSTED

    rows = []
    for name, known in PUBLISHED.items():
        if known.family != family:
            continue
        measured = f"timm {known.weights}" if known.top1 is not None else ""
        rows.append(
            {
                "name": name,
                "pixels": known.pixels,
                "parameters": known.parameters,
                "multiply_adds": known.multiply_adds,
                "gmacs": known.gmacs,
                "top1": known.top1,
                "protocol": _protocol(name) if known.top1 is not None else None,
                "source": "; ".join(filter(None, [measured, known.note])) or "counted here",
                "weights": f"hf:{HOSTED[name].hub}" if name in HOSTED else None,
            }
        )
    return rows


def _protocol(name: str) -> str:
    """Return short side, crop and interpolation of the evaluation."""
    from vitrail.models import make_config

    p = make_config(name).preprocess
    return f"{p.resize} to {p.size}, {p.interpolation}"
