"""PLY clouds and meshes: a text header, then elements as text or in binary."""

import struct
from typing import NamedTuple

import numpy as np

from vitrail.data.points.cloud import Cloud, Fault, check_size, triangles

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_MAX_HEADER = 64 * 1024
_CORNERS = ("vertex_indices", "vertex_index")
_PARTS = ("part", "label", "segment")


class Property(NamedTuple):
    """A column: its name, type, and for lists the type of their length."""

    name: str
    dtype: str
    length: str | None


class Element(NamedTuple):
    """A table: its name, number of rows, and columns."""

    name: str
    count: int
    columns: list[Property]


def read_ply(content: bytes) -> Cloud:
    """Read a PLY file; of faces with more than three corners, fans of triangles.

    Raises:
        Fault: the header or the data is broken.
    """
    order, elements, start = _header(content)
    if not any(element.name == "vertex" for element in elements):
        raise Fault("has no element vertex", "format")
    tables = _text(content[start:], elements) if not order else _binary(content, start, elements, order)
    vertex = tables["vertex"]
    if not {"x", "y", "z"} <= set(vertex):
        raise Fault("its vertices have no x, y and z", "format")
    points = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
    face = tables.get("face", {})
    corners = next((face[name] for name in _CORNERS if name in face), None)
    faces = None if corners is None else _triangles(corners)
    label = next((vertex[name] for name in _PARTS if name in vertex), None)
    parts = None if label is None or (faces is not None and len(faces)) else np.asarray(label).astype(np.int64)
    return Cloud(points, faces, parts)


def _triangles(corners: np.ndarray | list[list[int]]) -> np.ndarray:
    if isinstance(corners, np.ndarray) and corners.ndim == 2 and corners.shape[1] == 3:
        return corners.astype(np.int64)
    return triangles([[int(value) for value in row] for row in corners])


def _header(content: bytes) -> tuple[str, list[Element], int]:
    end = content.find(b"end_header", 0, _MAX_HEADER)
    stop = content.find(b"\n", end)
    if end < 0 or stop < 0:
        raise Fault("the header does not end", "truncated")
    order, elements = None, list[Element]()
    for line in content[:end].decode("ascii", "replace").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) > 1:
            order = _ORDERS.get(words[1])
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal():
            check_size(int(words[2]), words[1])
            elements.append(Element(words[1], int(words[2]), []))
        elif words[0] == "property" and elements:
            elements[-1].columns.append(_property(words))
        else:
            raise Fault(f"the header has a line that is not understood: {line[:60]!r}", "format")
    if order is None:
        raise Fault("the header names no known format", "format")
    return order, elements, stop + 1


def _property(words: list[str]) -> Property:
    if len(words) == 3 and words[1] in _TYPES:
        return Property(words[2], _TYPES[words[1]], None)
    if len(words) == 5 and words[1] == "list" and words[2] in _TYPES and words[3] in _TYPES:
        return Property(words[4], _TYPES[words[3]], _TYPES[words[2]])
    raise Fault(f"the header has an unknown property: {' '.join(words)[:60]!r}", "format")


def _text(body: bytes, elements: list[Element]) -> dict[str, dict]:
    lines = [line for line in body.decode("ascii", "replace").splitlines() if line.strip()]
    tables, at = {}, 0
    for element in elements:
        rows = lines[at : at + element.count]
        if len(rows) < element.count:
            raise Fault(f"declares {element.count:,} of {element.name} and has {len(rows):,}", "truncated")
        at += element.count
        try:
            tables[element.name] = _text_table(element, rows)
        except (ValueError, IndexError) as error:
            raise Fault(f"a row of {element.name} is broken: {error}"[:120], "broken") from None
    return tables


def _text_table(element: Element, rows: list[str]) -> dict:
    values: list[list] = [[] for _ in element.columns]
    for row in rows:
        words, at = row.split(), 0
        for column, found in zip(element.columns, values, strict=True):
            if column.length is None:
                found.append(float(words[at]))
                at += 1
            else:
                size = int(words[at])
                if size < 0 or at + 1 + size > len(words):
                    raise ValueError(f"a list of {size} values ends too early")
                found.append([int(float(word)) for word in words[at + 1 : at + 1 + size]])
                at += 1 + size
    return {column.name: found for column, found in zip(element.columns, values, strict=True)}


def _binary(content: bytes, start: int, elements: list[Element], order: str) -> dict[str, dict]:
    tables = {}
    for element in elements:
        if any(column.length for column in element.columns):
            tables[element.name], start = _lists(content, start, element, order)
        else:
            dtype = np.dtype([(column.name, order + column.dtype) for column in element.columns])
            stop = start + element.count * dtype.itemsize
            if stop > len(content):
                raise Fault(f"declares {element.count:,} of {element.name} and ends too early", "truncated")
            rows = np.frombuffer(content, dtype, element.count, start)
            tables[element.name], start = {name: rows[name] for name in dtype.names or ()}, stop
    return tables


def _lists(content: bytes, start: int, element: Element, order: str) -> tuple[dict, int]:
    """Read an element with lists: at once if all have three values, else row by row."""
    fields = []
    for column in element.columns:
        fields += [(f"#{column.name}", order + column.length)] if column.length else []
        fields.append(
            (column.name, order + column.dtype, (3,)) if column.length else (column.name, order + column.dtype)
        )
    dtype = np.dtype(fields)
    stop = start + element.count * dtype.itemsize
    if stop <= len(content):
        rows = np.frombuffer(content, dtype, element.count, start)
        if all((rows[name] == 3).all() for name in dtype.names or () if name.startswith("#")):
            return {column.name: rows[column.name] for column in element.columns}, stop
    return _row_by_row(content, start, element, order)


def _row_by_row(content: bytes, start: int, element: Element, order: str) -> tuple[dict, int]:
    values: dict[str, list] = {column.name: [] for column in element.columns}
    try:
        for _ in range(element.count):
            for column in element.columns:
                size = 1
                if column.length:
                    (size,) = struct.unpack_from(order + _code(column.length), content, start)
                    start += np.dtype(column.length).itemsize
                    if not 0 <= size <= len(content):
                        raise Fault(f"a list has {size} values", "broken")
                found = struct.unpack_from(f"{order}{int(size)}{_code(column.dtype)}", content, start)
                start += int(size) * np.dtype(column.dtype).itemsize
                values[column.name].append(list(found) if column.length else found[0])
    except struct.error:
        raise Fault(f"declares {element.count:,} of {element.name} and ends too early", "truncated") from None
    return values, start


def _code(dtype: str) -> str:
    return {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}[dtype]
