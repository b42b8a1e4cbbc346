"""`--config FILE`: precedence of command line over file, and the errors of a file."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitrail.cli import verb_class
from vitrail.cli.arguments import parse
from vitrail.errors import VitrailError
from vitrail.training.config import TrainConfig
from vitrail.training.run_dir import settle_config, write_config, write_environment


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flowers.yaml"


def asked(file: Path, *words: str) -> Any:
    return parse("train", verb_class("train"), ["--config", str(file), *words])


def test_command_line_overrides_the_config_file(file: Path) -> None:
    file.write_text("data: digits\nepochs: 3\nlr: 1e-3\nset:\n  - dim=48\n  - depths=2,2\ncompile: true\nfreeze: 2\n")
    given = verb_class("train")(
        data="digits", epochs=3, lr=1e-3, set=("dim=48", "depths=2,2"), compile=True, freeze="2"
    )
    assert asked(file) == replace(given, config=str(file))
    beside = asked(file, "epochs=5", "--no-compile", "flowers/", "--set", "dim=64")
    assert beside == replace(given, config=str(file), data="flowers/", epochs=5, compile=False, set=("dim=64",))


def test_json_configs_equal_yaml_configs(file: Path, tmp_path: Path) -> None:
    values = {"data": "digits", "warmup": 5, "imgsz": None, "batch": "auto", "set": ["dim=48"]}
    file.write_text(yaml.safe_dump(values))
    other = tmp_path / "flowers.json"
    other.write_text(json.dumps(values))
    assert replace(asked(file), config=None) == replace(asked(other), config=None)


def test_an_override_may_fix_an_invalid_config(file: Path) -> None:
    file.write_text("data: digits\nlr: 0.001\nmin_lr: 0.01\n")
    with pytest.raises(VitrailError, match="swap them"):
        asked(file)
    assert asked(file, "lr=0.1").min_lr == 0.01


def test_the_config_of_a_run_repeats_it_in_a_new_folder(tmp_path: Path) -> None:
    run = TrainConfig(data="digits", out=str(tmp_path), set=("dim=16", "depths=2,2"), lr=3e-4, batch=64)
    write_config(tmp_path, run)
    write_environment(tmp_path, {}, None)
    again = asked(tmp_path / "config.yaml")
    assert {name: getattr(again, name) for name in asdict(run)} == asdict(replace(run, out=None))
    assert asked(tmp_path / "config.yaml", "--out", "b").out == "b"


def test_the_out_folder_of_a_user_config_is_used(file: Path) -> None:
    file.write_text("data: digits\nout: runs/mine\n")
    assert asked(file).out == "runs/mine"


def test_a_resumed_run_keeps_its_config_except_overrides(run: Any, tmp_path: Path) -> None:
    """Also if the given value equals a default."""
    write_config(
        tmp_path,
        TrainConfig(data="digits", model="vit_tiny_patch16_224", lr=0.01, parallel="fsdp", save_seconds=5.0, workers=2),
    )
    again = parse("train", verb_class("train"), ["--resume", str(tmp_path), "--parallel", "ddp", "save_seconds=60"])
    assert (again.data, again.lr, again.parallel, again.save_seconds, again.workers) == ("digits", 0.01, "ddp", 60.0, 2)
    assert "begun with lr=0.01; it cannot go on with lr=0.001" in run("train", "--resume", str(tmp_path), "lr=1e-3").err
    assert "remove --out" in run("train", "--resume", str(tmp_path), "--out", "elsewhere").err


def test_runtime_options_may_change_on_resume(tmp_path: Path) -> None:
    begun = TrainConfig(
        data="digits", model="vit_tiny_patch16_224", parallel="fsdp", save_seconds=5.0, workers=2, out=str(tmp_path)
    )
    write_config(tmp_path, begun)
    config, folder = settle_config(replace(begun, resume="auto", parallel="ddp", save_seconds=60.0))
    assert (config.parallel, config.save_seconds, config.workers, folder) == ("ddp", 60.0, 2, tmp_path)
    config, _ = settle_config(TrainConfig(resume=str(tmp_path), workers=3))
    assert (config.parallel, config.save_seconds, config.workers) == ("fsdp", 5.0, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epocs: 3", "Unknown training option 'epocs'. Did you mean: epochs?"),
        ("config: other.yaml", "Unknown training option 'config'"),
        ("epochs: ten", "epochs is 'ten'; a whole number or nothing (null) is needed."),
        ("epochs: 2.5", "epochs is 2.5; a whole number or nothing (null) is needed."),
        ("epochs: yes", "epochs is True; a whole number or nothing (null) is needed."),
        ("lr: fast", "lr is 'fast'; a number or auto or nothing (null) is needed."),
        ("batch: many", "batch is 'many'; a whole number or auto or nothing (null) is needed."),
        ("compile: 1", "compile is 1; true or false is needed."),
        ("flip: off", "flip is False; a number or nothing (null) is needed."),
        ("precision: fp61", "precision is 'fp61'; auto or fp32 or bf16 is needed."),
        ("set: dim=48", "set is 'dim=48'; a list of words is needed."),
        ("model: [a]", "model is ['a']; a word is needed."),
        ("epochs: 0", "epochs is 0; it must be at least 1."),
        ("optimizer: adamm", "Unknown optimizer 'adamm'. Did you mean: adamw?"),
        ("digits", "holds no names with values"),
        ("", "holds no names with values"),
        ("lr: [1", "is not YAML: line"),
        ("lr: \x00", "is not YAML"),
    ],
)
def test_errors_of_a_config_file_are_reported(run: Any, file: Path, text: str, says: str) -> None:
    file.write_text(text)
    ran = run("train", "digits", "--config", str(file))
    assert ran.code == 2 and says in ran.err, ran.err
    assert len(ran.err.splitlines()) <= 6 and "Traceback" not in ran.err


def test_a_file_that_is_not_a_config_is_reported(run: Any, tmp_path: Path) -> None:
    assert "There is no file" in run("train", "--config", str(tmp_path / "nowhere.yaml")).err
    assert f"Give the file in it: {tmp_path / 'config.yaml'}" in run("train", f"config={tmp_path}").err
    (tmp_path / "bad.json").write_text("{'lr': 1}")
    assert "is not JSON" in run("train", "--config", str(tmp_path / "bad.json")).err
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not YAML" in run("train", "--config", str(tmp_path / "bytes.yaml")).err
    assert "--config needs a value" in run("train", "digits", "--config").err
