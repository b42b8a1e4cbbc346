"""Prediction on a Ray cluster: the worker alone, refusals, and a cluster that loses a machine."""

import io
import json
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from torch import nn

import vitrail
from vitrail.cli import main
from vitrail.inference import ray_engine
from vitrail.inference.ray_engine import RayJob, RayPredictor, _from_text, _row


@pytest.fixture(scope="module")
def saved(tiny: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(vitrail.save_model(tiny, tmp_path_factory.mktemp("models") / "tiny"))


def encoded(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 9), grey).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_worker_predicts_paths_and_bytes_as_this_process_does(saved: str, folder: Path) -> None:
    worker = RayPredictor(RayJob(saved, None, "cpu", {"top": 2}))
    names = [str(folder / "a" / "0.png"), str(folder / "a" / "broken.png")]
    good, bad = (_from_text(text) for text in worker({"name": np.array(names)})["result"])
    [local] = vitrail.predict(saved, names[0], top=2)
    assert good.to_dict() == local.to_dict() and good.cells() == local.cells() and str(good) == str(local)
    assert bad.error and good.renamed("x").to_dict()["path"] == "x"
    data = np.array([encoded(20), b"nothing"], dtype=object)
    held, lost = (_from_text(text) for text in worker({"name": np.array(["one", "two"]), "data": data})["result"])
    assert held.path == "one" and held.error is None and lost.error


def test_the_command_writes_what_the_local_engine_writes(
    saved: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def here(job, names, tables, batch, workers):  # the cluster is this process
        yield from map(_from_text, RayPredictor(job)({"name": np.array(list(reversed(names)))})["result"])

    monkeypatch.setattr(ray_engine, "ray_predictions", here)
    monkeypatch.setattr(ray_engine, "check_ray", lambda: None)
    monkeypatch.chdir(folder)
    for engine in ("local", "ray"):
        out = ["--engine", engine, "--out", str(tmp_path / f"{engine}.jsonl"), "--device", "cpu", "--no-optimize"]
        assert main(["predict", saved, "a", "b", *out]) == 3
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["predict", saved, "a/0.png", "--engine", "ray"]) == 0
    assert capsys.readouterr().out.startswith("a/0.png: ")
    (folder / "clip.txt").write_text("x")
    assert main(["predict", saved, "camera:0", "--engine", "ray"]) == 2


def test_rows_of_hugging_face_have_name_and_bytes() -> None:
    row = _row({"image": {"bytes": b"x", "path": "a.png"}}, "image", None, "t")
    assert row == {"name": "a.png", "data": b"x"}
    with pytest.raises(vitrail.errors.VitrailError, match="without a name"):
        _row({"bytes": b"x"}, "bytes", None, "t")


def test_options_unsupported_by_the_engine_are_refused(saved: str, monkeypatch, capsys) -> None:
    assert main(["predict", saved, "images.parquet"]) == 2
    assert main(["predict", saved, "a.png", "--workers", "2"]) == 2
    assert main(["predict", saved, "a.png", "--engine", "ray", "--save", "x"]) == 2
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    assert main(["predict", saved, "a.png", "--engine", "ray"]) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in ("--engine ray", "--workers belongs", "leave --save out", "ray[data]"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_machine_predicts_every_image_once(saved: str, tmp_path: Path, monkeypatch) -> None:
    ray = pytest.importorskip("ray", reason="pip install 'ray[data]'")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    names = [f"{i:04d}.png" for i in range(600)]
    for part in range(12):
        chosen = names[part * 50 : part * 50 + 50]
        table = arrow.table({"name": chosen, "image": [encoded(int(name[:4]) % 250) for name in chosen]})
        parquet.write_table(table, tmp_path / f"{part}.parquet")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    second = cluster.add_node(num_cpus=2)
    out = tmp_path / "out.jsonl"

    def kill() -> None:
        while not (out.exists() and out.stat().st_size):  # the job is under way
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        killer = Thread(target=kill, daemon=True)  # a failed test must not wait for it
        killer.start()
        tables = sorted(map(str, tmp_path.glob("*.parquet")))
        flags = ["--engine", "ray", "--workers", "2", "--batch", "10", "--out", str(out), "--device", "cpu"]
        assert main(["predict", saved, *tables, *flags]) == 0
        killer.join(60)
        assert not killer.is_alive()
    finally:
        ray.shutdown()
        cluster.shutdown()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["path"] for row in rows) == names
    [local] = vitrail.predict(saved, Image.open(io.BytesIO(encoded(7))))
    assert next(row for row in rows if row["path"] == "0007.png")["label"] == local.label
