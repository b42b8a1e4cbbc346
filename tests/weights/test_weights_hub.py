"""The hub, at one commit, against a server of our own: no request leaves this machine."""

import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.weights import hub
from vitrail.weights.folder import load_model, save_model
from vitrail.weights.load import load_weights

COMMIT, REPO = "0123456789abcdef" * 2 + "01234567", "me/swin"


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as pulling one repository needs."""

    folder = None
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send: bool):
        FakeHub.asked.append(self.path)
        if self.path.startswith(f"/api/models/{REPO}"):
            return self.info(send)
        start = f"/{REPO}/resolve/{COMMIT}/"
        file = self.folder / self.path.removeprefix(start).partition("?")[0]
        if not self.path.startswith(start) or not file.is_file():
            return self.missing()
        content = file.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        self.reply(content, send, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Type": "binary/octet-stream"})

    def info(self, send: bool):
        revision = re.split(r"/(?:revision|tree)/", self.path)[-1].partition("?")[0].partition("/")[0]
        revision = "main" if self.path.endswith(REPO) else revision
        if revision not in {"main", COMMIT}:
            return self.missing("RevisionNotFound")
        if "/tree/" in self.path:
            files = [{"type": "file", "path": path.name, "size": 1, "oid": "0"} for path in self.folder.iterdir()]
            return self.reply(json.dumps(files).encode(), send, {"Content-Type": "application/json"})
        siblings = [{"rfilename": path.name} for path in self.folder.iterdir()]
        facts = {"_id": "1", "id": REPO, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        self.reply(json.dumps(facts).encode(), send, {"Content-Type": "application/json"})

    def missing(self, code: str = "RepoNotFound"):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def reply(self, content: bytes, send: bool, headers: dict):
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(content)

    def log_message(self, format, *args):
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "vitrail-cache"))


@pytest.fixture
def saved(tmp_path):
    model = create_model(
        "swin_tiny_patch4_window7_224", dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=3, image_size=32
    )
    return save_model(model, tmp_path / "model", labels=["a", "b", "c"])


@pytest.fixture
def endpoint(saved):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    FakeHub.folder, FakeHub.asked = saved, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_branch_is_resolved_to_its_commit_for_every_file(endpoint, tmp_path):
    assert hub.pinned(f"hf:{REPO}", endpoint=endpoint) == f"hf:{REPO}@{COMMIT}"
    assert hub.pinned(f"hf:{REPO}@main", endpoint=endpoint) == f"hf:{REPO}@{COMMIT}"
    folder = hub.pull(f"hf:{REPO}@main", endpoint=endpoint, cache=tmp_path / "cache")
    fetched = [path for path in FakeHub.asked if "/resolve/" in path]
    assert fetched and all(f"/resolve/{COMMIT}/" in path for path in fetched)
    assert load_model(folder).labels == ("a", "b", "c")


def test_a_commit_is_taken_as_it_is_without_asking(monkeypatch):
    monkeypatch.setattr(hub, "_library", lambda: pytest.fail("the hub was asked"))
    assert hub.pinned(f"hf:{REPO}@{COMMIT}") == f"hf:{REPO}@{COMMIT}"


def test_weights_and_models_come_by_hub_id_and_the_commit_is_recorded(endpoint, tmp_path, monkeypatch):
    real_pull, real_pinned = hub.pull, hub.pinned
    monkeypatch.setattr(hub, "pull", lambda source: real_pull(source, endpoint=endpoint, cache=tmp_path / "cache"))
    monkeypatch.setattr(hub, "pinned", lambda source, **_: real_pinned(source, endpoint=endpoint))
    model = load_model(f"hf:{REPO}@main")
    assert load_weights(model, f"hf:{REPO}").source == f"hf:{REPO}@{COMMIT}"


@pytest.mark.parametrize("source", [f"hf:{REPO}@v9", "hf:me/nothing"])
def test_missing_hub_files_are_reported(source, endpoint, tmp_path):
    with pytest.raises(VitrailError, match="The hub has no"):
        hub.pull(source, endpoint=endpoint, cache=tmp_path / "cache")


def test_no_connection_is_reported(tmp_path):
    with pytest.raises(VitrailError, match="Check the connection"):
        hub.pull(f"hf:{REPO}@main", endpoint="http://127.0.0.1:9", cache=tmp_path / "cache")


@pytest.mark.parametrize("source", ["hf:", "hf:name", "hf:a/b/c", "hf:../../etc@x y", "swin"])
def test_a_malformed_id_is_reported(source):
    with pytest.raises(VitrailError, match="hf:org/name@revision"):
        hub.pinned(source)


def test_a_missing_extra_is_named_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(VitrailError, match="pip install huggingface_hub"):
        hub.pull(f"hf:{REPO}@{COMMIT}")


class FakeApi:
    """Records the files of an upload."""

    calls: ClassVar[list] = []

    def __init__(self, endpoint=None, token=None):
        pass

    def create_repo(self, repo, private, exist_ok):
        FakeApi.calls.append(("create", repo, private, exist_ok))

    def upload_folder(self, **options):
        FakeApi.calls.append(("upload", options))
        return type("Commit", (), {"oid": COMMIT})()


def test_push_sends_the_files_of_the_manifest_and_returns_the_commit(saved, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    FakeApi.calls = []
    (saved / "diary.txt").write_text("private")
    assert hub.push(saved, f"hf:{REPO}") == f"hf:{REPO}@{COMMIT}"
    (create, (_, options)) = FakeApi.calls
    assert create == ("create", REPO, False, True)
    assert sorted(options["allow_patterns"]) == sorted(
        path.name for path in saved.iterdir() if path.name != "diary.txt"
    )


def test_a_damaged_folder_is_not_pushed(saved, monkeypatch):
    monkeypatch.setattr(hub, "_library", lambda: pytest.fail("the hub was asked"))
    (saved / "README.md").write_text("other")
    with pytest.raises(VitrailError, match=r"README\.md"):
        hub.push(saved, f"hf:{REPO}")
