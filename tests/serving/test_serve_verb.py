"""The flags of `vitrail serve`: names of models, and mistakes with their remedy."""

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from vitrail.cli import main
from vitrail.cli.arguments import parse
from vitrail.cli.serve import Serve
from vitrail.errors import VitrailError
from vitrail.serving.startup import Source, name_sources

REMEDY = {
    "": "No model was given",
    "prot=8001 here": "Did you mean: --port",
    "hots=models/a here": "Did you mean: --host",
    "here --port 99999999": "between 0 and 65535",
    "here --port -1": "between 0 and 65535",
    "here --window -1": "between 0 and 1000",
    "here --timeout nan": "a number above 0",
    "here --batch 0": "at least 1",
    "here --queue 0": "a number above 0",
    "here --runs nowhere": "is no folder",
    "here --host 0.0.0.0": "needs a token",
    "here --token short": "at least 16 characters",
    "here --host 192.0.2.1 --token 0123456789abcdef": "an address of this machine",
    "here there/here": "Two models are called here",
    "here there --set top=2": "give MODEL.option=value",
    "here --set elsewhere.top=2": "Unknown model",
    "cats=models/none --port 0": "models/none is not there",
}


def words(line: str) -> tuple[str, ...]:
    return parse("serve", Serve, line.split()).models


def test_a_name_is_written_with_either_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    both = [Source("cats", "here"), Source("dogs", "models/b")]
    assert name_sources(words("cats=here dogs=models/b --port 0")) == both
    assert name_sources(words("cats:here port=0 dogs:models/b")) == both
    assert name_sources(words("models=cats=here")) == both[:1]
    assert name_sources(words("x=here")) == name_sources(words("x:here")) == [Source("x", "here")]


def test_places_that_have_a_sign_are_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3").mkdir()
    assert name_sources(words("lr=3")) == [Source("lr-3", "lr=3")]
    assert name_sources(["hf:org/flowers@main"]) == [Source("flowers", "hf:org/flowers@main")]
    assert name_sources(["mine=hf:org/flowers@main"]) == [Source("mine", "hf:org/flowers@main")]
    assert name_sources(["C:\\models\\a"])[0].place == "C:\\models\\a"


@pytest.mark.parametrize("line", list(REMEDY))
def test_a_mistake_gets_its_remedy(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITRAIL_TOKEN", raising=False)
    (tmp_path / "here").mkdir()
    assert main(["serve", *line.split()]) == 2
    assert REMEDY[line] in capsys.readouterr().err


def test_a_port_in_use_is_named() -> None:
    from vitrail.serving.server import listen

    with listen("127.0.0.1", 0) as held, pytest.raises(VitrailError, match="Choose another --port"):
        listen("127.0.0.1", held.getsockname()[1])
