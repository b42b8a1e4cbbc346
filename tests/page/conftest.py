"""Skips the room where the libraries of the server are missing."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # live and browser, which serve this room only


@pytest.fixture(scope="session", autouse=True)
def _needs_server_libraries() -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
