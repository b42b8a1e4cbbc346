"""Manifests of recipes: they parse, have the fields that matter, and their commands are real ones."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from PIL import Image
from shades import tiny_model

import vitrail
from vitrail.cli import verb_class
from vitrail.cli.arguments import parse

ROOT = Path(__file__).parents[2]
KUBERNETES, SLURM = ROOT / "recipes" / "kubernetes", sorted((ROOT / "recipes" / "slurm").glob("*.sbatch"))


def documents(name: str) -> dict[str, dict]:
    found = [one for one in yaml.safe_load_all((KUBERNETES / name).read_text()) if one]
    assert all({"apiVersion", "kind", "metadata"} <= one.keys() and one["metadata"]["name"] for one in found)
    return {one["kind"]: one for one in found}


def pods(value: object) -> list[dict]:
    """Return every pod spec inside a manifest."""
    if isinstance(value, dict):
        own = [value] if "containers" in value else []
        return own + [pod for each in value.values() for pod in pods(each)]
    return [pod for each in value for pod in pods(each)] if isinstance(value, list) else []


def check_command(words: list[str]) -> None:
    """Parse a command line of this library; placeholders of users' values are replaced."""
    verb, rest = words[0], [word.replace("$SLURM_ARRAY_TASK_ID", "1") for word in words[1:] if word != "$@"]
    parse(verb, verb_class(verb, rest), rest)


@pytest.mark.parametrize("name", sorted(path.name for path in KUBERNETES.glob("*.yaml")))
def test_pods_have_limits_versions_and_their_volumes(name: str) -> None:
    found = [pod for one in documents(name).values() for pod in pods(one)]
    assert found
    for pod in found:
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert not container["image"].endswith(":latest") and ":" in container["image"]
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_the_training_job_finds_its_first_pod_and_is_started_again() -> None:
    found = documents("train.yaml")
    job, service = found["Job"]["spec"], found["Service"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    assert service["spec"]["clusterIP"] == "None" and pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == job["template"]["metadata"]["labels"]
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    assert pod["restartPolicy"] == "OnFailure" and pod["terminationGracePeriodSeconds"] >= 60
    name = found["Job"]["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    flags = container["args"]
    assert f"--rdzv-endpoint={name}-0.{pod['subdomain']}:{port}" in flags and f"--nnodes={job['completions']}" in flags
    check_command(flags[flags.index("vitrail") + 1 :])
    assert "--resume=auto" in flags


def test_the_prediction_job_runs_the_command_on_its_own_cluster() -> None:
    job = documents("predict.yaml")["RayJob"]["spec"]
    words = shlex.split(job["entrypoint"])
    check_command(words[1:])
    assert words[words.index("--engine") + 1] == "ray" and job["shutdownAfterJobFinishes"] is True
    [group] = job["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_server_is_probed() -> None:
    found = documents("serve.yaml")
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    check_command(container["args"])
    assert container["env"][0]["name"] == "VITRAIL_TOKEN"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert found["Service"]["spec"]["selector"] == found["Deployment"]["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("path", SLURM, ids=lambda path: path.name)
def test_batch_scripts_parse_and_their_commands_exist(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    options = {line.partition("=")[0].split()[1] for line in lines if line.startswith("#SBATCH")}
    assert lines[0] == "#!/bin/bash" and {"--job-name", "--time", "--requeue"} <= options
    assert "set -euo pipefail" in text
    if shutil.which("bash"):
        subprocess.run(["bash", "-n", str(path)], check=True)
    joined = text.replace("\\\n", " ")
    commands = [line for line in joined.splitlines() if "vitrail " in line and not line.startswith("#")]
    assert commands
    for line in commands:
        words = shlex.split(line)
        check_command(words[words.index("vitrail") + 1 :])


def test_the_container_file_pins_its_base_and_has_no_rights() -> None:
    lines = [line for line in (ROOT / "Containerfile").read_text().splitlines() if line and not line.startswith("#")]
    words = [line.split()[0] for line in lines if not line.startswith((" ", "\t"))]
    assert words[0] == "FROM" and set(words) <= {
        "FROM",
        "ARG",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "ENV",
        "ENTRYPOINT",
        "CMD",
    }
    assert ":" in lines[0] and not lines[0].endswith("latest") and "USER 1000" in lines
    assert 'ENTRYPOINT ["vitrail"]' in lines
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    extras = next(line.partition("=")[2] for line in lines if line.startswith("ARG EXTRAS")).split(",")
    assert (
        set(extras) <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    )


def test_the_space_answers_with_classes_and_a_heatmap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = ROOT / "recipes" / "space"
    card = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert card["sdk"] == "gradio" and (folder / card["app_file"]).is_file()
    fake = ModuleType("gradio")
    fake.Interface = lambda function, **rest: SimpleNamespace(function=function)  # type: ignore[attr-defined]
    fake.Image = fake.Label = lambda **rest: rest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio", fake)
    spec = importlib.util.spec_from_file_location("space_app", folder / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    vitrail.save_model(tiny_model(), tmp_path / "model")
    classes, heat = app.demo(tmp_path / "model").function(Image.new("RGB", (40, 30), (90, 20, 20)))
    assert len(classes) == 5 and sum(classes.values()) <= 1.0001 and heat.size
