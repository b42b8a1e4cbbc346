"""Download the files of one commit of the hub: resumed, compared with the hub's checksums, recorded.

huggingface_hub resumes dropped connections but compares lengths only. Here each file is also compared with the digest
that the hub lists (SHA-256 of large files, git's SHA-1 of small ones). The record in the cache holds the SHA-256 of all
of them, so that later uses need no network and notice damage.
"""

import json
from fnmatch import fnmatchcase
from hashlib import sha1, sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from vitrail.atomic_io import write_file
from vitrail.cache import cache_folder
from vitrail.errors import DataError

WHOLE = "model.safetensors"
_BESIDE = ("*.json", "*.txt", "README.md", "vocab.*", "*.model", "*.spm")
_WEIGHTS = (WHOLE, "*.safetensors", "pytorch_model*.bin", "*.bin", "*.pth", "*.pt", "*.npz")


class RemoteFile(NamedTuple):
    """A file of a repository.

    Args:
        name: its path in the repository.
        size: bytes, if the hub lists them.
        digest: SHA-256 (64 hexadecimal digits) or git's SHA-1 (40), or None.
    """

    name: str
    size: int | None
    digest: str | None


def wanted_files(files: list[RemoteFile]) -> list[RemoteFile]:
    """Choose the weights in one format, and the small files beside them; files in subfolders are left.

    Example:
        >>> names = ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.bin"]
        >>> [file.name for file in wanted_files([RemoteFile(name, None, None) for name in names])]
        ['config.json', 'model.safetensors']
    """
    top = [file for file in files if "/" not in file.name]
    for pattern in _WEIGHTS:
        weights = [file for file in top if fnmatchcase(file.name, pattern)]
        if weights:
            break
    else:
        weights = []
    taken = {file.name for file in weights}
    index = {"pytorch_model.bin.index.json"} if any(name.endswith(".safetensors") for name in taken) else set()
    beside = [file for file in top if any(fnmatchcase(file.name, pattern) for pattern in _BESIDE)]
    return [file for file in beside if file.name not in taken | index] + weights


def fetched(repo: str, commit: str) -> Path | None:
    """Return the folder of a commit that was downloaded before and is undamaged."""
    try:
        record = json.loads(_record(repo, commit).read_bytes())
        folder, files = Path(record["folder"]), dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if all((folder / name).is_file() and file_digest(folder / name) == digest for name, digest in files.items()):
        return folder
    return None


def fetched_before(repo: str) -> list[str]:
    """Return the hub ids of the commits of a repository that were downloaded before."""
    start = _record(repo, "").name.removesuffix(".json")
    return [f"hf:{repo}@{path.stem.rpartition('@')[2]}" for path in sorted(cache_folder("hub").glob(f"{start}*.json"))]


def fetch(
    hub: ModuleType, repo: str, commit: str, endpoint: str | None = None, cache: str | Path | None = None
) -> Path:
    """Download the wanted files of a commit; return their folder.

    Args:
        hub: the module huggingface_hub.
        repo: `org/name`.
        commit: the commit.
        endpoint: address of the hub.
        cache: cache folder of huggingface_hub.

    Raises:
        DataError: the hub sends other bytes than it lists, twice.
    """
    info = hub.HfApi(endpoint=endpoint).model_info(repo, revision=commit, files_metadata=True)
    files = wanted_files([_listed(sibling) for sibling in info.siblings or []])
    if not files:
        raise DataError(f"hf:{repo}@{commit[:12]} holds no weights that are read.\nLook at its files on the hub.")
    place = {"repo_id": repo, "revision": commit, "endpoint": endpoint, "cache_dir": cache}
    paths = {file.name: _download(hub, place, file) for file in files}
    folder = paths[files[-1].name].parent
    digests = {name: file_digest(path) for name, path in paths.items()}
    record = {"hub": f"hf:{repo}@{commit}", "folder": str(folder), "files": digests}
    write_file(_record(repo, commit), (json.dumps(record, indent=2) + "\n").encode())
    return folder


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     file_digest(Path(file.name))[:8]
        'e3b0c442'
    """
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(hub: Any, place: dict[str, Any], file: RemoteFile) -> Path:
    """Download a file; again from its first byte if the received length or the digest is wrong."""
    path = None
    for again in (False, True):
        try:
            path = Path(hub.hf_hub_download(filename=file.name, force_download=again, tqdm_class=None, **place))
        except OSError as error:
            if again or not _is_wrong_length(error):
                raise
            continue
        if _matches(path, file):
            return path
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    raise DataError(
        f"The hub sent other bytes than it lists for {file.name} of {place['repo_id']}, twice "
        f"(size {file.size}, digest {file.digest}).\nNothing was kept. A proxy may change downloads: try another "
        "network, or download the file yourself and give its path."
    )


def _is_wrong_length(error: OSError) -> bool:
    """Return whether the client refused a file for its length, or could not continue a partial one."""
    response = getattr(error, "response", None)
    return "Consistency check" in str(error) or getattr(response, "status_code", None) == 416


def _matches(path: Path, file: RemoteFile) -> bool:
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if file.digest is None:
        return True
    return file.digest == (file_digest(path) if len(file.digest) == 64 else _git_digest(path))


def _git_digest(path: Path) -> str:
    content = path.read_bytes()
    return sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def _listed(sibling: Any) -> RemoteFile:
    lfs = getattr(sibling, "lfs", None)
    digest = getattr(lfs, "sha256", None) or getattr(sibling, "blob_id", None)
    return RemoteFile(sibling.rfilename, getattr(sibling, "size", None), digest)


def _record(repo: str, commit: str) -> Path:
    return cache_folder("hub") / f"{repo.replace('/', '--')}@{commit}.json"
