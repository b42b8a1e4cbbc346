"""Where the package comes from: builds repeat to the byte, the wheel is the tree, nothing installs anything.

That an import opens no connection is in `test_startup.py`.
"""

import ast
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "vitrail"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def tracked(folder: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build wheel and source archive twice."""
    folders = [tmp_path_factory.mktemp("dist") for _ in range(2)]
    for folder in folders:
        command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folders


@pytest.mark.slow
def test_two_builds_are_the_same_bytes(builds: list[Path]) -> None:
    one, two = ({path.name: sha256(path.read_bytes()).digest() for path in folder.iterdir()} for folder in builds)
    assert one == two and {name.rpartition(".")[2] for name in one} == {"whl", "gz"}


@pytest.mark.slow
def test_the_wheel_is_the_tree(builds: list[Path]) -> None:
    [wheel] = builds[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    expected = {name.removeprefix("src/"): (ROOT / name).read_bytes() for name in tracked("src/vitrail")}
    assert held == expected  # sources of the kernels, templates and style sheets too
    [source] = builds[0].glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*tracked("src/vitrail"), *tracked("docs"), "pyproject.toml", "LICENSE", "CHANGELOG.md"}


@pytest.mark.slow
def test_the_bill_of_materials_lists_every_pinned_package(tmp_path: Path) -> None:
    constraints, bills = ROOT / "requirements" / "constraints.txt", [tmp_path / "1.json", tmp_path / "2.json"]
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom is not installed: make sbom fetches it")
    for bill in bills:
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(constraints), "--output-reproducible"]
        subprocess.run([*command, "-o", str(bill)], check=True, capture_output=True)
    assert bills[0].read_bytes() == bills[1].read_bytes()
    found = json.loads(bills[0].read_text())
    assert found["bomFormat"] == "CycloneDX"
    assert {part["name"].lower() for part in found["components"]} == {
        name.lower() for name in PINNED.findall(constraints.read_text())
    }


def installs(tree: ast.Module) -> list[int]:
    """Return the lines whose call runs an installer: `pip`, `uv`, `conda` or `apt` as the word of a command."""
    tools = {"pip", "pip3", "uv", "conda", "mamba", "apt", "apt-get", "npm"}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.List | ast.Tuple)
        and any(isinstance(each, ast.Constant) and each.value in tools for each in node.elts)
        and any(isinstance(each, ast.Constant) and each.value in ("install", "add") for each in node.elts)
    ]


def test_no_code_installs_packages() -> None:
    assert installs(ast.parse("run([sys.executable, '-m', 'pip', 'install', name])")) == [1]
    texts = {
        path.name: text
        for path in SOURCE.rglob("*.py")
        if re.search("[\"'](install|add)[\"']", text := path.read_text())
    }
    assert {name: lines for name, text in texts.items() if (lines := installs(ast.parse(text)))} == {}
