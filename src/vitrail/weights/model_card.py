"""The model card: a README with the facts, the metrics and the usage of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from vitrail.preprocess import Preprocess


def model_card(
    variant: str,
    *,
    parameters: int,
    preprocess: Preprocess,
    labels: Sequence[str] | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str = "unknown",
) -> str:
    """Return the text of a model card: front matter for the hub, then facts, metrics and usage.

    Args:
        variant: name of the model.
        parameters: number of parameters.
        preprocess: the evaluation protocol.
        labels: names of the classes, in order.
        metrics: metrics, by name.
        dataset: evaluation data set of the metrics.
        license: the licence of the weights, as the hub spells it (`apache-2.0`, `mit`, `cc-by-nc-4.0`...).
    """
    front = yaml.safe_dump(_front_matter(variant, metrics or {}, dataset, license), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---", f"# {variant}", _facts(variant, parameters, preprocess, labels)]
    if metrics:
        place = _plain(dataset or "a held-out split")
        rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
        parts.append(f"## Figures\n\nMeasured on {place}.\n\n| metric | value |\n|---|---|\n{rows}")
    parts.append(_USE)
    return "\n\n".join(parts) + "\n"


_USE = """## Use

```python
import vitrail

model = vitrail.load_model("this/folder")
print(vitrail.predict(model, "picture.jpg"))
```

Every file of this folder, and every tensor, has its checksum in `manifest.json`; loading checks them."""


def _front_matter(variant: str, metrics: Mapping[str, float], dataset: str | None, license: str) -> dict[str, Any]:
    """Return the fields that the hub reads; `model-index` only if there are metrics."""
    front: dict[str, Any] = {
        "license": license,
        "library_name": "vitrail",
        "pipeline_tag": "image-classification",
        "tags": ["vitrail", "image-classification"],
    }
    if metrics:
        name = dataset or "held-out split"
        values = [{"type": _hub_metric(key), "value": float(value), "name": key} for key, value in metrics.items()]
        task = {"type": "image-classification", "name": "Image classification"}
        result = {"task": task, "dataset": {"name": name, "type": _slug(name)}, "metrics": values}
        front["metrics"] = sorted({value["type"] for value in values})
        front["model-index"] = [{"name": variant, "results": [result]}]
    return front


def _facts(variant: str, parameters: int, preprocess: Preprocess, labels: Sequence[str] | None) -> str:
    """Return the table of facts about the model."""
    size, short = preprocess.size, preprocess.resize
    rows = {
        "architecture": variant,
        "parameters": f"{parameters:,}",
        "input": f"{size} x {size}: short side to {short} ({preprocess.interpolation}), then the centre",
        "mean, std": f"{tuple(preprocess.mean)}, {tuple(preprocess.std)}",
    }
    if labels:
        shown = ", ".join(_plain(label) for label in labels[:10])
        rows["classes"] = f"{len(labels)}: {shown}" + (", ..." if len(labels) > 10 else "")
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"An image classifier made with Vitrail.\n\n| | |\n|---|---|\n{table}"


def _hub_metric(name: str) -> str:
    """Return the hub's name of a metric, if it has one."""
    return {"top1": "accuracy", "top-1": "accuracy"}.get(name, name)


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
