"""The door opens fast: nothing heavy is imported before it is needed, and importing changes nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vitrail
from vitrail.cli import VERBS

HEAVY = ["torch", "torchvision", "numpy", "PIL", "sklearn", "matplotlib", "safetensors"]


def loaded_by(code: str) -> list[str]:
    """Run code in a fresh Python and return the heavy packages that it imported."""
    report = f"{code}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return json.loads(done.stderr.splitlines()[-1])


def test_the_probe_detects_an_import() -> None:
    assert loaded_by("import numpy") == ["numpy"]


@pytest.mark.parametrize(
    "code",
    [
        "import vitrail",
        "import vitrail; dir(vitrail)",
        "from vitrail.cli import main; main(['--help'])",
        "from vitrail.cli import main; main(['--version'])",
        "from vitrail.cli import main; main(['trian'])",
        "from vitrail.cli import main; main(['models'])",
        "from vitrail.cli import main; main(['models', 'swim_tiny'])",
        "from vitrail.cli import main; main(['completion', 'bash'])",
    ],
)
def test_the_package_imports_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == []


def test_the_help_of_every_verb_imports_nothing_heavy() -> None:
    code = f"from vitrail.cli import main\nfor verb in {list(VERBS)}: main([verb, '--help'])"
    assert loaded_by(code) == []


def test_scikit_learn_is_imported_where_it_is_used() -> None:
    """With pandas and SciPy it takes 140 MB and two seconds, which no training needs."""
    root = Path(vitrail.__file__).parent
    top = re.compile(r"^(?:from|import) (?:sklearn|pandas|scipy)\b", re.MULTILINE)
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if top.search(path.read_text())}
    assert found == {"tasks/classes/probe.py", "study/intervals.py"}, "a module of a verb that needs it may do so"


def test_importing_every_module_has_no_side_effects() -> None:
    code = """
import os, pkgutil, sys, torch
import matplotlib, sklearn, torchvision  # these have settings of their own to make
from importlib import import_module
before = dict(os.environ), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
state = torch.get_rng_state()
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system", "os.exec"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(watch)
import vitrail
for module in pkgutil.walk_packages(vitrail.__path__, "vitrail."):
    module.name.endswith("__main__") or import_module(module.name)
after = dict(os.environ), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
assert before == after and torch.equal(state, torch.get_rng_state())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
