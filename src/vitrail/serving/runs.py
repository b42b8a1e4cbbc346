"""Routes of training runs: their list, and their reports under a policy that lets them reach nothing."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from fastapi import APIRouter, Request
from starlette.responses import Response

from vitrail.errors import VitrailError
from vitrail.serving.access import SESSION_COOKIE, SESSION_FOLDER
from vitrail.serving.predict_route import json_response
from vitrail.serving.refusal import Refusal
from vitrail.serving.service import Service
from vitrail.tasks import DEFAULT, find_task

router = APIRouter()

REPORT = "report.html"
_CONFIG, _SUMMARY = "config.yaml", "summary.json"
_DEPTH, _MOST = 4, 500
_LARGEST = 64 << 20
_SESSIONS = 64
_SHOWN_METRICS = 3
_SCRIPT = re.compile(rb"'sha256-[A-Za-z0-9+/]{43}='")


@router.get("/v1/runs", summary="List training runs")
async def list_runs(request: Request) -> Response:
    """Return the runs of the served folder, the newest first; `runs` is null if there is no such folder."""
    service: Service = request.app.state.service
    folder = service.runs
    if folder is None:
        return json_response({"runs": None})
    return await service.in_pool(
        lambda: json_response({"runs": [describe_run(folder, run) for run in find_runs(folder)]})
    )


@router.post("/runs/session", summary="Let this browser read reports")
async def open_session(request: Request) -> Response:
    """Set a cookie that opens the reports, which a browser loads without the header of the token."""
    sessions = request.app.state.service.sessions
    while len(sessions) >= _SESSIONS:
        sessions.pop()
    sessions.add(value := secrets.token_urlsafe(24))
    answer = Response(status_code=204)
    secure = request.url.scheme == "https"
    answer.set_cookie(SESSION_COOKIE, value, path=SESSION_FOLDER, httponly=True, samesite="strict", secure=secure)
    return answer


@router.get("/runs/{name:path}/report", summary="Report of a run")
async def report(name: str, request: Request) -> Response:
    """Return the report of a run: it may load nothing, and runs the scripts only that its own policy names."""
    service: Service = request.app.state.service
    content = await service.in_pool(lambda: read_report(service.runs, name))
    return Response(
        content, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": report_policy(content)}
    )


def report_policy(content: bytes) -> str:
    """Return the policy of a report: that of its own `meta` element, in a sandbox without an origin.

    Example:
        >>> report_policy(b"<html>")
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; sandbox"
    """
    head = content[: content.find(b"</head>")] if b"</head>" in content else b""
    scripts = b" ".join(dict.fromkeys(_SCRIPT.findall(head))).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return f"{policy}; script-src {scripts}; sandbox allow-scripts" if scripts else f"{policy}; sandbox"


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders below a folder, the newest first; links are not followed.

    Example:
        >>> find_runs(Path("runs/none"))
        []
    """
    found = sorted(_walk(folder, _DEPTH), key=_changed, reverse=True)
    return found[:_MOST]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    if any(entry.name == _CONFIG for entry in entries):
        yield folder
        return
    for entry in entries:
        if depth and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _walk(Path(entry.path), depth - 1)


def describe_run(folder: Path, run: Path) -> dict[str, Any]:
    """Return facts of a run: name, task, model, headline figures (none while it trains), time, report.

    Example:
        >>> describe_run(Path("runs"), Path("runs/none"))["name"]
        'none'
    """
    config, summary = _read(run / _CONFIG), _read(run / _SUMMARY)
    task, name = str(config.get("task") or DEFAULT), run_name(folder, run)
    return {
        "name": name,
        "task": task,
        "model": str(config.get("model") or ""),
        "metrics": _figures(task, summary),
        "modified": _changed(run),
        "report": f"/runs/{quote(name)}/report" if (run / REPORT).is_file() else None,
    }


def read_summary(run: Path) -> dict[str, Any]:
    """Return the summary of a finished run; nothing of one that trains.

    Example:
        >>> read_summary(Path("runs/none"))
        {}
    """
    return _read(run / _SUMMARY)


def run_name(folder: Path, run: Path) -> str:
    """Return the name of a run: its path below the served folder.

    Example:
        >>> run_name(Path("runs"), Path("runs/classify/flowers"))
        'classify/flowers'
    """
    return run.relative_to(folder).as_posix() if run != folder else run.resolve().name


def read_report(folder: Path | None, name: str) -> bytes:
    """Return the report of a run of the list; the name is compared with the names of the list, never used as a path.

    Raises:
        Refusal: there is no such run, or it has no report.

    Example:
        >>> read_report(None, "flowers")
        Traceback (most recent call last):
        vitrail.serving.refusal.Refusal: There is no such report.
    """
    runs = () if folder is None else find_runs(folder)
    run = next((each for each in runs if folder is not None and run_name(folder, each) == name), None)
    path = None if run is None else run / REPORT
    if path is None or path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
        raise Refusal(404, "not_found", "There is no such report.")
    return path.read_bytes()


def _figures(task: str, summary: dict[str, Any]) -> dict[str, str]:
    try:
        metrics = find_task(task).metrics
    except VitrailError:  # of another version
        return {}
    known = [each for each in metrics if isinstance(summary.get(each.name), int | float)]
    return {each.title: each.format(summary[each.name]) for each in known[:_SHOWN_METRICS]}


def _read(path: Path) -> dict[str, Any]:
    """Return the values of a file; none if it is missing or damaged, as a run may be writing it."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _changed(run: Path) -> float:
    newest = 0.0
    for name in (_CONFIG, _SUMMARY, "metrics.jsonl"):
        try:
            newest = max(newest, (run / name).stat().st_mtime)
        except OSError:
            continue
    return newest
