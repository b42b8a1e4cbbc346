"""Model folders and checkpoints on the Hugging Face hub, always at one commit.

A branch such as `main` moves: it is resolved to a commit once, and that commit is downloaded and recorded.
"""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrail.errors import VitrailError
from vitrail.weights.download import fetch, fetched, fetched_before
from vitrail.weights.manifest import verify

_ID = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def pull(source: str, *, endpoint: str | None = None, cache: str | Path | None = None) -> Path:
    """Download a hub id at one commit, and return the local folder; a commit fetched before needs no network.

    Args:
        source: `hf:org/name`, `hf:org/name@branch-or-tag` or `hf:org/name@commit`.
        endpoint: address of the hub; huggingface_hub's default if None.
        cache: cache folder; huggingface_hub's default if None.

    Raises:
        VitrailError: the extra is not installed, the id is malformed, or the hub does not have it.
        DataError: the received files are not those that the hub lists.
    """
    repo, commit = _split(pinned(source, endpoint=endpoint))
    assert commit is not None
    folder = fetched(repo, commit)
    if folder is not None:
        return folder
    hub = _library()
    with _Refusals(source):
        return fetch(hub, repo, commit, endpoint, cache)


def pinned(source: str, *, endpoint: str | None = None) -> str:
    """Return a hub id with its revision resolved to a commit.

    Args:
        source: `hf:org/name`, with or without `@revision`.
        endpoint: address of the hub.
    """
    repo, revision = _split(source)
    if revision is not None and _COMMIT.fullmatch(revision):
        return source
    with _Refusals(source):
        info = _library().HfApi(endpoint=endpoint).model_info(repo, revision=revision)
    return f"hf:{repo}@{info.sha}"


def push(
    folder: str | Path,
    target: str,
    *,
    message: str = "Upload a Vitrail model folder",
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a model folder as one commit and return the hub id with that commit.

    Every checksum is verified first: a damaged folder is not uploaded.

    Args:
        folder: a model folder from `save_model`.
        target: `hf:org/name` or `hf:org/name@branch`.
        message: the commit's message.
        private: whether a repository that does not exist yet is made private.
        token: access token; that of `hf auth login` if None.
        endpoint: address of the hub.
    """
    listed = [*verify(folder)["files"], "manifest.json"]
    repo, revision = _split(target)
    api = _library().HfApi(endpoint=endpoint, token=token)
    with _Refusals(target):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, commit_message=message, allow_patterns=listed
        )
    return f"hf:{repo}@{commit.oid}"


class _Refusals:
    """Converts exceptions of the hub's client to errors with a remedy."""

    def __init__(self, source: str):
        self.source = source

    def __enter__(self) -> None:
        _library()
        self.errors = import_module("huggingface_hub.errors")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        first = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, (self.errors.RepositoryNotFoundError, self.errors.RevisionNotFoundError)):
            raise VitrailError(
                f"The hub has no {self.source}: {first}\n"
                "Check the spelling and the revision; a private one needs: hf auth login"
            ) from error
        # The client's transport (httpx, whichever of its names) is not our dependency, so its error is matched by name.
        names = {kind.__name__ for kind in type(error).__mro__}
        if isinstance(error, OSError) or names & {"LocalEntryNotFoundError", "TransportError"}:
            raise VitrailError(
                f"Cannot get {self.source} from the hub: {first}\n"
                "Check the connection; a dropped download continues when the command is repeated.\n" + self._offline()
            ) from error

    def _offline(self) -> str:
        """Return the remedy without a network."""
        repo, _ = _split(self.source)
        before = fetched_before(repo)
        if before:
            return f"Without a network, give what was fetched before: {before[-1]}"
        return (
            f"Without a network, copy the files of https://huggingface.co/{repo} from another machine into a folder,\n"
            "and give that folder (--weights FOLDER)."
        )


def _split(source: str) -> tuple[str, str | None]:
    """Return repository and revision of a hub id."""
    found = _ID.fullmatch(source)
    if found is None:
        raise VitrailError(
            f"Cannot read the hub id '{source}'. Write it as hf:org/name@revision, for example hf:me/swin@main."
        )
    return found["repo"], found["revision"]


def _library() -> ModuleType:
    """Import huggingface_hub, or raise an error with the install command."""
    try:
        return import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise VitrailError(
            "The hub needs the package huggingface_hub, which is not installed.\n"
            "Install it with: pip install huggingface_hub (or, from a clone of Vitrail, pip install '.[hub]')"
        ) from error
