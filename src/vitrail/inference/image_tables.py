"""Parquet files of images, such as those of Hugging Face: each file is read by its own schema."""

import glob
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from vitrail.data.prefetch import prefetch_map
from vitrail.errors import DataError, VitrailError

NAMES = ("name", "path", "file_name", "filename", "id")
IMAGES = ("image", "bytes", "img", "picture")
SUFFIX = ".parquet"
_NEEDED = f"a column {', '.join(IMAGES)} of encoded images, of structs {{bytes, path}} as Hugging Face has, or of paths"
_BATCH = 64


class TablePart(NamedTuple):
    """A row group of a parquet file.

    Args:
        file: path or address, as given.
        group: number of the row group.
        first: number of its first row in the file.
        image: column of the images.
        name: column of their names, or nothing.
        root: folder of the file, which paths of images are relative to; nothing for an address.
    """

    file: str
    group: int
    first: int
    image: str
    name: str
    root: str


class TableImage(NamedTuple):
    """The image of a row.

    Args:
        name: its name: a cell, or file and number of the row.
        data: the encoded image, if the table holds it.
        file: path of the image otherwise.
        reason: reason why the row has no image.
    """

    name: str
    data: bytes = b""
    file: str = ""
    reason: str = ""


def is_address(word: str) -> bool:
    """Return whether a word is an address such as s3://bucket/images.

    Example:
        >>> is_address("s3://bucket/images"), is_address("images/0.parquet")
        (True, False)
    """
    return "://" in word


def table_files(words: Sequence[str]) -> list[str]:
    """Return the parquet files of paths, patterns, folders and addresses, in a stable order.

    Raises:
        VitrailError: there are none.
    """
    return list(dict.fromkeys(file for word in words for file in _files(word)))


def table_parts(files: Sequence[str]) -> list[TablePart]:
    """Return the row groups of parquet files, whose footers are read.

    Raises:
        VitrailError: a file has no column of images, or all of them are without rows.
        DataError: a file cannot be read.
    """
    parts = [part for found in prefetch_map(_parts_of, files, window=64, threads=16) for part in found]
    if not parts:
        raise VitrailError(f"{', '.join(files[:3])}: no rows, so there is nothing to predict. Name other files.")
    return parts


def read_part(part: TablePart) -> Iterator[TableImage]:
    """Yield the images of a row group.

    Raises:
        DataError: the file cannot be read.
    """
    arrow = import_module("pyarrow")
    number = part.first
    try:
        with _opened(part.file) as table:
            columns = [part.image, part.name] if part.name else [part.image]
            for batch in table.iter_batches(_BATCH, row_groups=[part.group], columns=columns):
                for row in batch.to_pylist():
                    yield _image_of(row, part, number)
                    number += 1
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(part.file, error) from error


def _image_of(row: dict[str, Any], part: TablePart, number: int) -> TableImage:
    """Return the image of a row; a Hugging Face image holds bytes, a path, or both."""
    cell = row[part.image]
    if isinstance(cell, dict):
        data, path = cell.get("bytes"), cell.get("path")
    else:
        data, path = (None, cell) if isinstance(cell, str) else (cell, None)
    called = row[part.name] if part.name else None
    name = next((str(one) for one in (called, path) if one not in (None, "")), f"{part.file}#{number}")
    if data is not None:
        return TableImage(name, data) if data else TableImage(name, reason="the image is empty (0 bytes)")
    if not path:
        return TableImage(name, reason=f"no image in row {number} of {part.file}")
    if is_address(path) or not part.root:
        return TableImage(name, reason=f"the row has an address ({path}) and no bytes; nothing is downloaded")
    return TableImage(name, file=os.path.join(part.root, path))


def _parts_of(file: str) -> list[TablePart]:
    """Return the row groups of a file with their columns."""
    arrow = import_module("pyarrow")
    try:
        with _opened(file) as table:
            schema = table.schema_arrow
            sizes = [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(file, error) from error
    image = next((name for name in IMAGES if name in schema.names), None)
    if image is None:
        raise VitrailError(
            f"{file} has the columns {', '.join(schema.names)}; needed is {_NEEDED}.\nRename the column."
        )
    if not _holds_images(schema.field(image).type):
        raise VitrailError(f"{file}: the column {image} is of type {schema.field(image).type}; needed is {_NEEDED}.")
    name = next((name for name in NAMES if name in schema.names), "")
    root = "" if is_address(file) else os.path.dirname(os.path.abspath(file))
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [TablePart(file, i, firsts[i], image, name, root) for i, size in enumerate(sizes) if size]


def _holds_images(kind: Any) -> bool:
    """Return whether values of an Arrow type are bytes, paths, or structs of them."""
    types = import_module("pyarrow").types
    if types.is_struct(kind):
        fields = [field for field in kind if field.name in ("bytes", "path")]
        return bool(fields) and all(types.is_null(field.type) or _holds_images(field.type) for field in fields)
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_string", "is_large_string")
    return any(getattr(types, test)(kind) for test in tests)


def _files(word: str) -> list[str]:
    if is_address(word):
        return _files_at(word)
    if os.path.isdir(word):
        found = glob.glob(os.path.join(glob.escape(word), "**", f"*{SUFFIX}"), recursive=True)
    elif os.path.exists(word):
        return [word]
    else:
        found = glob.glob(word, recursive=True) if glob.has_magic(word) else []
    if not found:
        raise VitrailError(f"There is no {SUFFIX} file at '{word}' (looked from {os.getcwd()}).")
    return sorted(found)


def _files_at(address: str) -> list[str]:
    """Return an address, or those of the files of a folder."""
    fs = import_module("pyarrow.fs")
    try:
        system, path = _system(address)
        info = system.get_file_info(path)
        if info.type == fs.FileType.File:
            return [address]
        listed = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from error
    inside = [each.path for each in listed if each.type == fs.FileType.File and each.path.endswith(SUFFIX)]
    if not inside:
        raise VitrailError(f"There is no {SUFFIX} file at '{address}'. Name a file or a folder of them.")
    place = address.rstrip("/")
    return sorted(place + each.removeprefix(path.rstrip("/")) for each in inside)


def _system(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it: Arrow's own, else that of fsspec."""
    fs = import_module("pyarrow.fs")
    try:
        return fs.FileSystem.from_uri(address)
    except ValueError:  # an unknown scheme
        try:
            system, path = import_module("fsspec.core").url_to_fs(address)
        except ImportError as missing:
            raise OSError(f"{missing}") from missing
        return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def _opened(file: str) -> Any:
    parquet = import_module("pyarrow.parquet")
    if not is_address(file):
        return parquet.ParquetFile(file)
    system, path = _system(file)
    return parquet.ParquetFile(path, filesystem=system)


def _unreadable(file: str, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0][:200].rstrip(".")
    return DataError(f"{file} cannot be read as a parquet file: {reason}.\nCopy it again, or leave it out.")
