"""OFF meshes: counts, vertices, faces, as text."""

import numpy as np

from vitrail.data.points.cloud import Cloud, Fault, check_size, triangles


def read_off(content: bytes) -> Cloud:
    """Read an OFF mesh; colours and normals of vertices are ignored, polygons are cut into triangles.

    The counts may follow the keyword without a space (`OFF490 518 0`), as in many files of ModelNet40.

    Raises:
        Fault: the content differs from the declared counts.

    Example:
        >>> read_off(b"OFF\\n3 1 0\\n0 0 0\\n1 0 0\\n0 1 0\\n3 0 1 2\\n").points.shape
        (3, 3)
    """
    text = without_comments(content).decode("ascii", "replace")
    text = text[text.index("OFF") + 3 :]
    lines = [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
    if text.split(maxsplit=1)[:1] == ["BINARY"]:
        raise Fault("binary OFF is not read; write it as text", "format")
    numbers = _numbers(lines)
    if len(numbers) < 3:
        raise Fault("the file ends before its counts", "truncated")
    vertices, faces = _whole(numbers[0]), _whole(numbers[1])
    check_size(vertices)
    check_size(faces, "faces")
    if 3 * vertices > len(numbers) - 3:
        raise Fault(f"declares {vertices:,} points and ends too early", "truncated")
    start = 3 + 3 * vertices
    rest = numbers[start:]
    if len(rest) == 4 * faces and (not faces or bool((rest[::4] == 3).all())):
        return Cloud(numbers[3:start].reshape(-1, 3), rest.reshape(-1, 4)[:, 1:].astype(np.int64))
    return _by_lines(lines, vertices, faces)


def without_comments(content: bytes) -> bytes:
    """Return a text without the blank lines and comments (`#`) before its first line.

    Example:
        >>> without_comments(b"# made by a scanner\\n\\nOFF 3 1 0")
        b'OFF 3 1 0'
    """
    content = content.lstrip()
    while content.startswith(b"#"):
        content = content.partition(b"\n")[2].lstrip()
    return content


def _numbers(lines: list[str]) -> np.ndarray:
    try:
        return np.array(" ".join(lines).split(), dtype=np.float64)
    except ValueError as error:
        raise Fault(f"not a number: {error}"[:120], "broken") from None


def _whole(value: float) -> int:
    if not np.isfinite(value) or value != int(value):
        raise Fault(f"a count is {value}", "broken")
    return int(value)


def _by_lines(lines: list[str], vertices: int, faces: int) -> Cloud:
    """Read one vertex and one face a line, whatever follows them in the line."""
    body = lines[1:]
    if len(lines[0].split()) != 3:
        raise Fault("the first line has no three counts", "format")
    if len(body) < vertices + faces:
        raise Fault(f"declares {vertices:,} points and {faces:,} faces and has {len(body):,} lines", "truncated")
    rows = [line.split() for line in body[: vertices + faces]]
    if any(len(row) < 3 for row in rows[:vertices]):
        raise Fault("a point has less than three coordinates", "broken")
    polygons = []
    for row in rows[vertices:]:
        corners = int(float(row[0]))
        if not 1 <= corners < len(row):
            raise Fault(f"a face declares {corners} corners and has {len(row) - 1}", "broken")
        polygons.append([int(float(value)) for value in row[1 : corners + 1]])
    points = np.array([row[:3] for row in rows[:vertices]], dtype=np.float64).reshape(-1, 3)
    return Cloud(points, triangles(polygons))
