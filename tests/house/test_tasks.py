"""The tools know tasks by their interfaces alone: none names a task, its metrics, its classes or its types."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "vitrail"
ROOMS = ("training", "cli", "weights", "inference", "report", "bench", "machine")
ALLOWED = {
    "cli/data.py": "checks data sets of labelled images",
    "cli/model_family.py": "shows the published figures of one architecture",
    "cli/models.py": "shows the published figures of the catalogue, which are those of ImageNet",
    "cli/explain.py": "names the classes that it explains, as `explain/` is about classifiers",
    "bench/": "compares classifiers of other libraries",
    "weights/metadata.py": "reads the class names that other libraries write into their checkpoints",
    "weights/from_checkpoint.py": "gives them to the model",
    "weights/infer_config.py": "names the kinds of heads of a BERT",
    "weights/huggingface.py": "writes them for transformers",
}
"""Files with a reason to name what others may not."""

WORDS = {"top1", "top5", "labels", "class_names", "classes"}
TASK_MODULES = ("vitrail.tasks.classify",)


def names_of_a_task(text: str) -> list[str]:
    """Return where a file names a task: an import of its package, or an identifier or key of it."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(TASK_MODULES):
            found.append(f"line {node.lineno}: imports {node.module}")
        names = {
            ast.Name: lambda n: n.id,
            ast.Attribute: lambda n: n.attr,
            ast.arg: lambda n: n.arg,
            ast.keyword: lambda n: n.arg,
            ast.Constant: lambda n: n.value,
        }
        read = names.get(type(node))
        if read is not None and read(node) in WORDS:
            found.append(f"line {getattr(node, 'lineno', 0)}: {read(node)}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_tool_names_no_task(room: str) -> None:
    files = [path for path in (SOURCE / room).rglob("*.py") if "formats" not in path.parts]
    offenders = {}
    for path in files:
        name = str(path.relative_to(SOURCE))
        if not any(name.startswith(allowed) for allowed in ALLOWED) and (found := names_of_a_task(path.read_text())):
            offenders[name] = found
    assert offenders == {}


def test_the_shell_of_the_report_names_no_task() -> None:
    text = (SOURCE / "report" / "templates" / "report.html").read_text().lower()
    assert not [word for word in ("top-1", "top1", "confusion", "calibration", "labels") if word in text]


@pytest.mark.parametrize(
    "line",
    [
        "from vitrail.tasks.classify.result import Classification",
        "value = metrics['top1']",
        "summary.top5",
        "save_model(model, labels=names)",
        "def f(class_names): ...",
    ],
)
def test_the_rule_detects_a_violation(line: str) -> None:
    assert names_of_a_task(line)


def test_exceptions_are_still_needed() -> None:
    for name in ALLOWED:
        place = SOURCE / name
        files = [*place.rglob("*.py")] if place.is_dir() else [place]
        assert any(names_of_a_task(path.read_text()) for path in files), name
