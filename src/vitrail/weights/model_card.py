"""The model card: a README with the facts, the metrics and the usage of a model."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from vitrail.inputs import ModelInputs
from vitrail.parts.model import ModelKind


def model_card(
    variant: str,
    *,
    parameters: int,
    inputs: ModelInputs | None,
    kind: ModelKind,
    edits: Sequence[str] = (),
    metadata: Mapping[str, Any] = MappingProxyType({}),
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str = "unknown",
) -> str:
    """Return the text of a model card: front matter for the hub, then facts, metrics and usage.

    Args:
        variant: name of the model.
        parameters: number of parameters.
        inputs: the value that turns raw data into inputs, if any.
        kind: noun for the models of the task.
        edits: changes since the model was built, in words.
        metadata: plain values; those with a title in `kind` are listed.
        metrics: measured figures, by name.
        dataset: data of the metrics.
        license: the licence of the weights, as the hub spells it (`apache-2.0`, `mit`, `cc-by-nc-4.0`...).
    """
    front = yaml.safe_dump(
        _front_matter(variant, kind, metrics or {}, dataset, license), sort_keys=False, allow_unicode=True
    )
    parts = [f"---\n{front}---", f"# {variant}", _facts(variant, parameters, inputs, kind, metadata, edits)]
    if metrics:
        place = _plain(dataset or "a held-out split")
        rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
        parts.append(f"## Figures\n\nMeasured on {place}.\n\n| metric | value |\n|---|---|\n{rows}")
    code = "\n".join(["import vitrail", "", 'model = vitrail.load_model("this/folder")', *filter(None, [kind.example])])
    parts.append(f"## Use\n\n```python\n{code}\n```\n\n{_CHECKSUMS}")
    return "\n\n".join(parts) + "\n"


_CHECKSUMS = "`manifest.json` has a checksum of every file of this folder and of every tensor; loading verifies them."


def _front_matter(
    variant: str, kind: ModelKind, metrics: Mapping[str, float], dataset: str | None, license: str
) -> dict[str, Any]:
    """Return the fields that the hub reads; `model-index` only where there is something to say."""
    front: dict[str, Any] = {"license": license, "library_name": "vitrail"}
    if kind.pipeline_tag:
        front["pipeline_tag"] = kind.pipeline_tag
    front["tags"] = ["vitrail", *([kind.pipeline_tag] if kind.pipeline_tag else [])]
    if metrics and kind.pipeline_tag:
        name = dataset or "held-out split"
        values = [
            {"type": kind.metric_names.get(key, key), "value": float(value), "name": key}
            for key, value in metrics.items()
        ]
        task = {"type": kind.pipeline_tag, "name": kind.pipeline_tag.replace("-", " ").capitalize()}
        result = {"task": task, "dataset": {"name": name, "type": _slug(name)}, "metrics": values}
        front["metrics"] = sorted({value["type"] for value in values})
        front["model-index"] = [{"name": variant, "results": [result]}]
    return front


def _facts(
    variant: str,
    parameters: int,
    inputs: ModelInputs | None,
    kind: ModelKind,
    metadata: Mapping[str, Any],
    edits: Sequence[str],
) -> str:
    """Return the table of facts."""
    rows = {"architecture": variant, "parameters": f"{parameters:,}"}
    rows |= {"edits": _plain("; ".join(edits))} if edits else {}
    rows |= {} if inputs is None else inputs.facts()
    for key, title in kind.titles.items():
        if values := metadata.get(key):
            shown = ", ".join(_plain(str(value)) for value in values[:10])
            rows[title] = f"{len(values)}: {shown}" + (", ..." if len(values) > 10 else "")
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"{kind.noun} made with Vitrail.\n\n| | |\n|---|---|\n{table}"


def _slug(name: str) -> str:
    """Spell a data set's name as an identifier."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split()) or "unknown"


def _plain(text: str) -> str:
    """Escape text so that it is neither markup nor breaks a table.

    Example:
        >>> _plain("<b>cat|dog</b>")
        '&lt;b&gt;cat\\\\|dog&lt;/b&gt;'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.replace("|", "\\|").split())
