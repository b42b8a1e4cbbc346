"""Places of the files that predictions write, checked before the job."""

from collections.abc import Callable, Iterable
from os.path import abspath, dirname, relpath
from pathlib import Path

from vitrail.atomic_io import check_writable_folder
from vitrail.errors import VitrailError


def saved_folder(save: Path, name: str, root: str) -> Path:
    """Return the folder for the files of an input: `save`, with the subfolders of the input below `root`.

    Example:
        >>> saved_folder(Path("out"), "/photos/cats/a.jpg", "/photos").as_posix()
        'out/cats'
    """
    return save / relpath(dirname(abspath(name)), root)


def check_saved_files(names: Iterable[str], saved_name: Callable[[str], str], save: Path, root: str) -> None:
    """Refuse a job whose files would overwrite each other, or its inputs.

    Args:
        names: the inputs.
        saved_name: name of the files of an input, without the ending that all inputs share.
        save: folder of the files.
        root: folder that the subfolders of `save` are relative to.

    Raises:
        VitrailError: two inputs have one file, an input is in the folder of its file, or `save` is not writable.
    """
    check_writable_folder(save)
    seen: dict[Path, str] = {}
    for name in names:
        folder = saved_folder(save, name, root)
        if folder.resolve() == Path(dirname(abspath(name))).resolve():
            raise VitrailError(f"{name} is in the folder of its result, {folder}. Choose another folder.")
        key = folder / saved_name(name)
        if seen.setdefault(key, name) != name:
            raise VitrailError(
                f"{seen[key]} and {name} would give the same file in {folder}.\n"
                "Take them in two jobs, each with a folder of its own."
            )
