"""A tar of folders of images, read in place.

Nothing is unpacked: a member is a span of bytes inside the tar, so a hostile path cannot write anywhere, and links and
devices are never followed. A compressed tar is expanded into the cache once, as one file, because a gzip stream cannot
be entered in the middle.
"""

import bz2
import gzip
import json
import lzma
import tarfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import IO

from vitrail.cache import cache_folder, fingerprint, stamp, written
from vitrail.data.class_folders import arrange, is_hidden
from vitrail.data.dataset import Span
from vitrail.data.image_io import open_regular, printable
from vitrail.data.index import DataProblem, DatasetIndex
from vitrail.errors import DataError

_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_MOST_EXPANSION = 200
"""A tar of images shrinks a few times; one that grows more than this is made to fill a disk."""


def list_archive(path: Path) -> DatasetIndex:
    """List the images in a tar (`.tar`, `.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz`)."""
    tar = _expanded(path)
    index = cache_folder("tar") / f"{fingerprint('index 2', *stamp(tar))}.json"
    if not index.exists():
        with written(index) as file:
            file.write(json.dumps(_index(tar, printable(path.name))).encode())
    content = json.loads(index.read_bytes())
    places: dict[str, Path | Span] = {name: Span(tar, offset, size) for name, offset, size in content["files"]}
    listing = arrange(printable(path.name), places, content["folders"])
    listing.problems += [DataProblem(*problem) for problem in content["problems"]]
    listing.ignored += Counter(content["ignored"])
    return listing


def _index(tar: Path, name: str) -> dict[str, list | dict]:
    """Walk the headers of a tar once."""
    files, folders, problems, ignored = {}, [], [], Counter[str]()
    try:
        with open_regular(tar, name) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                key = printable("/".join(part for part in path.parts if part != "."))
                if path.is_absolute() or ".." in path.parts:
                    problems.append((printable(member.name), "the path leaves the archive; it is not read", "path"))
                elif member.isdir():
                    folders += [key] if key else []  # `tar czf data.tar.gz .` names the root too
                elif member.isreg() and not member.issparse():
                    files[key] = (member.offset_data, member.size)  # a later member of the same name replaces the first
                elif not is_hidden(key):
                    ignored["links and devices in the archive"] += 1
    except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
        raise DataError(f"{name} is not a whole tar archive: {error}.\nDownload it again.") from error
    size = tar.stat().st_size
    cut = [key for key, (offset, length) in files.items() if offset + length > size]
    if cut:
        raise DataError(f"{name} ends in the middle of {cut[0]}: the archive is cut off.\nDownload it again.")
    table = [(key, offset, length) for key, (offset, length) in files.items()]
    return {"files": table, "folders": folders, "problems": problems, "ignored": dict(ignored)}


def _expanded(path: Path) -> Path:
    """Return the path of an uncompressed tar: this one, or its expansion in the cache."""
    with open_regular(path) as file:
        unpack = _COMPRESSED.get(file.read(2))
        if unpack is None:
            return path
        target = cache_folder("tar") / f"{fingerprint('expanded 1', *stamp(path))}.tar"
        if not target.exists():
            file.seek(0)
            with written(target) as output:
                _expand(unpack(file), output, path)
    return target


def _expand(stream: IO[bytes], output: IO[bytes], path: Path) -> None:
    most = max(path.stat().st_size * _MOST_EXPANSION, 64 * 2**20)
    total = 0
    try:
        while chunk := stream.read(2**20):
            total += len(chunk)
            if total > most:
                raise DataError(f"{printable(path)} grows more than {_MOST_EXPANSION} times when expanded; refused.")
            output.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{printable(path)} is broken or cut off: {error}.\nDownload it again.") from error
