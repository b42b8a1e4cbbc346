"""Public weights by name, from a server of our own that drops connections and sends wrong bytes and lengths."""

import hashlib
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import vitrail
from vitrail.cli import main
from vitrail.errors import DataError, VitrailError
from vitrail.models.published import PUBLISHED
from vitrail.models.published.hosted import HOSTED
from vitrail.training.config import TrainConfig
from vitrail.training.recipe import with_recipe
from vitrail.weights import hub, pretrained
from vitrail.weights.download import fetched_before
from vitrail.weights.folder import save_model

NAME = "vit_tiny_patch16_224"
REPO = f"timm/{NAME}.augreg_in21k_ft_in1k"
COMMIT = "5" * 40
TINY = {"dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "image_size": 32}


class Hub(BaseHTTPRequestHandler):
    """One repository at one commit; `server.fault` damages the next responses for the weights."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send: bool):
        self.server.paths.append((self.command, self.path, self.headers.get("Range")))
        files = self.server.files
        if self.path.startswith("/api/models/"):
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": git_sha(data)}
                | ({"lfs": {"sha256": sha(data), "size": len(data), "pointerSize": 1}} if name.endswith("s") else {})
                for name, data in files.items()
            ]
            facts = {"_id": "1", "id": REPO, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self.reply(json.dumps(facts).encode(), send)
        name = self.path.rpartition("/")[2].partition("?")[0]
        if f"/resolve/{COMMIT}/" not in self.path or name not in files:
            return self.reply(b"", send, code=404)
        return self.send_file(files[name], send, name)

    def send_file(self, data: bytes, send: bool, name: str):
        headers = {"ETag": f'"{sha(data)}"', "X-Repo-Commit": COMMIT}
        fault = self.server.fault if send and name == "model.safetensors" else None
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if fault is None:
            return self.reply(data[start:], send, headers, code=206 if start else 200)
        self.server.faults_left -= 1
        if self.server.faults_left == 0:
            self.server.fault = None
        if fault == "flip":
            return self.reply(b"\0" * 8 + data[8:], send, headers)
        if fault == "short":
            return self.reply(data[:-100], send, headers)
        if fault == "long":
            return self.reply(data + b"more", send, headers)
        self.send_response(200)  # drop: half of the announced length, then the end of the connection
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True

    def reply(self, content: bytes, send: bool, headers: dict | None = None, code: int = 200):
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if send:
            self.wfile.write(content)

    def log_message(self, format, *args):
        pass


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = save_model(vitrail.create_model(NAME, num_classes=7, **TINY), tmp_path_factory.mktemp("m") / "model")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.fault, server.faults_left, server.paths = dict(files), None, 1, []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)  # kept part of a dropped download
    monkeypatch.setattr(pretrained, "pinned", partial(hub.pinned, endpoint=endpoint))
    monkeypatch.setattr(hub, "pull", partial(hub.pull, endpoint=endpoint, cache=tmp_path / "hf"))
    yield server
    server.shutdown()
    server.server_close()


def make(**fields):
    return vitrail.create_model(NAME, pretrained=True, **{**TINY, "num_classes": 7, **fields})


def test_weights_are_downloaded_by_name_once(server, files):
    state = make().state_dict()
    asked = len(server.paths)
    assert not any("pytorch_model" in path for _, path, _ in server.paths)
    server.files.clear()
    again = make().state_dict()
    assert len(server.paths) == asked and all(torch.equal(value, again[key]) for key, value in state.items())
    assert pretrained.pinned_weights(NAME) == f"hf:{REPO}@{COMMIT}" == fetched_before(REPO)[0]


@pytest.mark.parametrize("fault", ["drop", "short", "long", "flip"])
def test_a_fault_of_the_network_is_repaired(server, fault):
    server.fault = fault
    assert make().config.num_classes == 7
    ranges = [asked for command, path, asked in server.paths if command == "GET" and "safetensors" in path]
    assert len(ranges) == 2 and (ranges[1] is not None) == (fault == "drop")  # dropped: the rest is asked for


@pytest.mark.parametrize(("fault", "error"), [("flip", DataError), ("short", VitrailError), ("long", VitrailError)])
def test_a_permanent_fault_is_an_error_without_leftovers(server, tmp_path, fault, error):
    server.fault, server.faults_left = fault, 100
    with pytest.raises(error) as raised:
        make()
    assert len(str(raised.value).splitlines()) <= 6
    assert not fetched_before(REPO)
    server.fault = None
    assert make().config.num_classes == 7


def test_damage_in_the_cache_is_downloaded_again(server, tmp_path):
    make()
    (file,) = (tmp_path / "hf").rglob("model.safetensors")
    real = file.resolve()
    data = bytearray(real.read_bytes())
    data[-1] ^= 1
    real.write_bytes(data)
    state = make().state_dict()
    assert all(torch.equal(value, state[key]) for key, value in make().state_dict().items())
    assert sum("safetensors" in path and command == "GET" for command, path, _ in server.paths) == 2


def test_without_a_network_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "pinned", partial(hub.pinned, endpoint="http://127.0.0.1:9"))
    with pytest.raises(VitrailError, match=r"(?s)Check the connection.*--weights FOLDER"):
        make()


def test_a_run_records_the_commit(server):
    config, notes = with_recipe(TrainConfig(data="digits", model=NAME, weights="pretrained"))
    assert config.weights == f"hf:{REPO}@{COMMIT}" and COMMIT in notes[0] and config.lr == 5e-4


def test_the_model_page_names_repository_licence_and_commit(server, capsys):
    make()
    assert main(["models", NAME]) == 0
    page = capsys.readouterr().out
    assert f"hf:{REPO}@{COMMIT}" in page and "licence apache-2.0" in page
    assert main(["models", "nest_tiny"]) == 0
    assert "none on the hub that are known" in capsys.readouterr().out


def test_weights_without_a_head_get_a_new_one_of_zeros(server, files, tmp_path, monkeypatch):
    headless = save_model(vitrail.create_model(NAME, **TINY, num_classes=0), tmp_path / "headless")
    server.files = {path.name: path.read_bytes() for path in headless.iterdir() if path.name != "manifest.json"}
    monkeypatch.setitem(HOSTED, NAME, HOSTED[NAME]._replace(classes=0))
    assert make(num_classes=5).head.linear.weight.abs().max() == 0
    assert vitrail.create_model(NAME, pretrained=True, **TINY).config.num_classes == 0


def test_variants_without_public_weights_name_others():
    with pytest.raises(VitrailError, match="nest_tiny_jx"):
        vitrail.create_model("nest_tiny", pretrained=True)


def test_timm_names_the_same_weights():
    from timm.models import get_pretrained_cfg

    for name, hosted in HOSTED.items():
        if not hosted.hub.startswith("timm/"):
            continue
        cfg, figures = get_pretrained_cfg(hosted.hub.removeprefix("timm/")), PUBLISHED[name]
        assert (cfg.hf_hub_id, cfg.license, cfg.num_classes) == (hosted.hub, hosted.licence, hosted.classes)
        assert figures.weights in ("", cfg.tag)
        if figures.top1 is not None:  # the accuracy holds for timm's protocol
            ours = vitrail.models.make_config(name).preprocess
            theirs = (cfg.input_size[1], cfg.crop_pct, cfg.interpolation, tuple(cfg.mean), tuple(cfg.std))
            assert (ours.size, round(ours.crop, 4), ours.interpolation, ours.mean, ours.std) == theirs
