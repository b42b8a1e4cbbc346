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
from vitrail.errors import DataError, ResourceError, VitrailError
from vitrail.inference import ray_engine
from vitrail.inference.image_tables import TablePart, read_part, table_files, table_parts
from vitrail.inference.ray_engine import RayJob, RayPredictor, RemoteResult, _from_text, _rows


@pytest.fixture(scope="module")
def saved(tiny: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(vitrail.save_model(tiny, tmp_path_factory.mktemp("models") / "tiny"))


def encoded(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 9), grey).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(path: Path, **columns: object) -> str:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, row_group_size=3)
    return str(path)


def images_of_hugging_face(*cells: object) -> object:
    arrow = pytest.importorskip("pyarrow")
    return arrow.array(cells, type=arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))


def run_here(job: RayJob, tables: list[str]) -> list[RemoteResult]:
    """Return the results of tables by the functions that Ray calls, in this process."""
    worker, results = RayPredictor(job), []
    for part in table_parts(table_files(tables)):
        rows = list(_rows(part._asdict()))
        block = {key: np.array([row[key] for row in rows], dtype=object) for key in rows[0]}
        results += map(_from_text, worker(block)["result"])
    return results


def test_a_worker_predicts_paths_and_bytes_as_this_process_does(saved: str, folder: Path) -> None:
    worker = RayPredictor(RayJob(saved, None, "cpu", {"top": 2}))
    names = [str(folder / "a" / "0.png"), str(folder / "a" / "broken.png")]
    good, bad = (_from_text(text) for text in worker({"name": np.array(names)})["result"])
    [local] = vitrail.predict(saved, names[0], top=2)
    assert good.to_dict() == local.to_dict() and good.cells() == local.cells() and str(good) == str(local)
    assert bad.error and good.renamed("x").to_dict()["path"] == "x"
    [gone] = worker({"name": np.array([str(folder / "gone.png")])})["result"]
    assert "no image at" in str(_from_text(gone).error)


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


def test_rows_of_hugging_face_without_path_or_image(saved: str, tmp_path: Path) -> None:
    cells = [
        {"bytes": encoded(10), "path": "a.png"},
        {"bytes": encoded(90), "path": None},
        {"bytes": b"bad", "path": "bad.png"},
        None,
        {"bytes": None, "path": None},
        {"bytes": b"", "path": ""},
    ]
    table = write_table(tmp_path / "hf.parquet", image=images_of_hugging_face(*cells))
    found = run_here(RayJob(saved, None, "cpu", {}), [table])
    assert [one.path for one in found] == ["a.png", f"{table}#1", "bad.png", *(f"{table}#{row}" for row in (3, 4, 5))]
    assert [one.error is None for one in found] == [True, True, False, False, False, False]
    assert "not an image" in str(found[2].error) and "no image in row 3" in str(found[3].error)
    assert "0 bytes" in str(found[5].error)


def test_tables_of_different_columns_together(saved: str, folder: Path, tmp_path: Path) -> None:
    held = write_table(tmp_path / "1.parquet", image=images_of_hugging_face({"bytes": encoded(10), "path": None}))
    plain = write_table(tmp_path / "2.parquet", id=[7, None], bytes=[encoded(20), None])
    paths = write_table(tmp_path / "3.parquet", image=["pictures/a/0.png", "gone.png", "s3://x/y.png", None])
    found = run_here(RayJob(saved, None, "cpu", {}), [str(tmp_path / "*.parquet")])
    assert [one.path for one in found] == [
        *(f"{held}#0", "7", f"{plain}#1"),
        *("pictures/a/0.png", "gone.png", "s3://x/y.png", f"{paths}#3"),
    ]
    reasons = [None, None, "no image", None, "no such file", "nothing is downloaded", "no image"]
    for one, reason in zip(found, reasons, strict=True):
        assert one.error is None if reason is None else reason in str(one.error)


def test_tables_without_images_are_refused_by_name(tmp_path: Path) -> None:
    texts = write_table(tmp_path / "texts.parquet", text=["a joy"])
    with pytest.raises(VitrailError, match=r"texts.parquet has the columns text; needed is a column image"):
        table_parts([texts])
    with pytest.raises(VitrailError, match=r"numbers.parquet: the column image is of type int64"):
        table_parts([write_table(tmp_path / "numbers.parquet", image=[1])])
    with pytest.raises(VitrailError, match="no rows"):
        table_parts([write_table(tmp_path / "empty.parquet", image=images_of_hugging_face())])
    (tmp_path / "broken.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"broken.parquet cannot be read as a parquet file"):
        table_parts([str(tmp_path / "broken.parquet")])
    with pytest.raises(DataError, match="cannot be read as a parquet file"):
        list(read_part(TablePart(str(tmp_path / "gone.parquet"), 0, 0, "image", "", "")))
    with pytest.raises(VitrailError, match=r"no \.parquet file at"):
        table_files([str(tmp_path / "none*.parquet")])


def test_tables_of_folders_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    table = write_table(tmp_path / "train" / "0.parquet", bytes=[encoded(1), encoded(2)])
    assert table_files([str(tmp_path), table]) == [table]
    address = tmp_path.as_uri()
    assert table_files([address]) == [f"{address}/train/0.parquet"]
    [part] = table_parts(table_files([address]))
    assert [image.name for image in read_part(part)] == [f"{address}/train/0.parquet#{row}" for row in (0, 1)]
    with pytest.raises(VitrailError, match=r"no \.parquet file at"):
        table_files([f"{address}/none"])
    with pytest.raises(DataError, match="zz://x"):
        table_files(["zz://x/y.parquet"])


def test_errors_in_a_worker_keep_type_and_message(saved: str, tmp_path: Path, monkeypatch) -> None:
    worker = RayPredictor(RayJob(str(tmp_path / "none"), None, "cpu", {}))
    with pytest.raises(VitrailError, match="is not there"):
        _from_text(worker({"name": np.array(["a.png"])})["result"][0])
    with pytest.raises(DataError, match=r"gone.parquet cannot be read"):
        gone = _rows(TablePart("gone.parquet", 0, 0, "image", "", "")._asdict())
        worker = RayPredictor(RayJob(saved, None, "cpu", {}))
        _from_text(worker({key: np.array([value]) for key, value in next(gone).items()})["result"][0])

    def full(good: object) -> None:
        raise MemoryError("1 GiB")

    monkeypatch.setattr(worker.predictor, "predict", full)
    data = {"data": np.array([encoded(1)], dtype=object), "file": np.array([""]), "reason": np.array([""])}
    with pytest.raises(ResourceError, match="--batch"):
        _from_text(worker({"name": np.array(["a"]), **data})["result"][0])


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
