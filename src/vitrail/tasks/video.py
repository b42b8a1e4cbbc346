"""Frames of videos and cameras as images."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any

from PIL import Image

from vitrail.data.color import to_grey, to_rgb
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.image_sources import VIDEOS, SourceImage

CAMERA = "camera:"
_PAPER = (255, 255, 255)


@dataclass(frozen=True)
class FrameSource:
    """A video file or a camera, with the frames to take.

    Args:
        place: path of the file, or `camera:0`.
        fps: frames per second; 0 takes all frames of a file, and one per second of a camera.
        most: most frames; 0 takes all of a file, and one of a camera.
    """

    place: str
    fps: float = 0.0
    most: int = 0

    def images(self, mode: str) -> list[SourceImage]:
        """List the frames without decoding them.

        Raises:
            VitrailError: the package av is missing, or there is no such file or camera.
            DataError: the file is no video.
        """
        if find_spec("av") is None:
            raise VitrailError("Videos and cameras need the package av, which is missing: pip install av")
        return self._camera(mode) if self.place.startswith(CAMERA) else self._file(mode)

    def _file(self, mode: str) -> list[SourceImage]:
        count, rate = _count_frames(self.place)
        step = max(rate / self.fps, 1.0) if self.fps and rate else 1.0
        numbers = [int(i * step) for i in range(int(-(-count // step)))][: self.most or None]
        frames = _FrameReader(self.place)
        return [_frame(f"{self.place}#{number}", mode, lambda number=number: frames.get(number)) for number in numbers]

    def _camera(self, mode: str) -> list[SourceImage]:
        name = self.place.removeprefix(CAMERA)
        if not name.isdigit():
            raise VitrailError(f"A camera is {CAMERA}0 or another number; got {self.place}.")
        frames = _CameraReader(int(name), self.fps or 1.0)
        return [_frame(f"{self.place}#{i}", mode, lambda i=i: frames.get(i)) for i in range(self.most or 1)]


def with_frames(sources: object, fps: float, most: int) -> object:
    """Replace videos and cameras among the words of a command line by sources of their frames."""
    if isinstance(sources, str) or not isinstance(sources, list | tuple):
        return sources
    return [FrameSource(one, fps, most) if isinstance(one, str) and is_video(one) else one for one in sources]


def left_out_note(words: Iterable[str]) -> str:
    """Return a sentence about the videos of the folders among the words, which are not searched for; nothing if none.

    Example:
        >>> left_out_note(["clip.mp4", "no/such/folder"])
        ''
    """
    folders = [word for word in words if os.path.isdir(word)]
    names = (name for folder in folders for _, _, files in os.walk(folder) for name in files if name[0] != ".")
    count = sum(map(is_video, names))
    if not count:
        return ""
    them = "1 video of the folders is" if count == 1 else f"{count} videos of the folders are"
    return f"{them} left out: name the file to predict its frames."


def is_video(word: str) -> bool:
    """Return whether a word names a video file or a camera.

    Example:
        >>> is_video("clip.MP4"), is_video("camera:0"), is_video("a.png")
        (True, True, False)
    """
    return word.startswith(CAMERA) or Path(word).suffix.lower() in VIDEOS


def _frame(name: str, mode: str, get: Callable[[], Image.Image]) -> SourceImage:
    def read() -> Image.Image:
        return to_rgb(get(), _PAPER) if mode == "RGB" else to_grey(get(), _PAPER)

    return SourceImage(name, read)


def _open(place: str, **options: Any) -> Any:
    av = import_module("av")
    try:
        return av.open(place, **options)
    except av.error.FFmpegError as error:
        kind = VitrailError if options or not Path(place).is_file() else DataError
        raise kind(f"{place} cannot be opened as a video: {error.strerror or error}.") from error


def _count_frames(place: str) -> tuple[int, float]:
    """Return the number of frames, by packets without decoding, and frames per second."""
    with _open(place) as container:
        if not container.streams.video:
            raise DataError(f"{place} has no video.")
        stream = container.streams.video[0]
        count = sum(1 for packet in container.demux(stream) if packet.size)
        return count, float(stream.average_rate or 0)


class _FrameReader:
    """Frames of a file by number; threads that ask for neighbouring frames share one pass of decoding."""

    def __init__(self, place: str):
        self.place, self._lock = place, Lock()
        self._frames: Iterator[Image.Image] | None = None
        self._next, self._kept = 0, dict[int, Image.Image]()

    def get(self, number: int) -> Image.Image:
        """Return a frame; frames that were passed by on the way to it are kept until they are read."""
        with self._lock:
            if number in self._kept:
                return self._kept.pop(number)
            if self._frames is None or number < self._next:
                self._frames, self._next = _decode(self.place), 0
                self._kept.clear()
            for image in self._frames:
                here, self._next = self._next, self._next + 1
                if here == number:
                    return image
                if number - here <= 256:
                    self._kept[here] = image
                    self._kept = dict(list(self._kept.items())[-256:])
            raise DataError("the frame cannot be decoded")


def _decode(place: str) -> Iterator[Image.Image]:
    with _open(place) as container:
        for frame in container.decode(video=0):
            yield frame.to_image()


class _CameraReader:
    """Frames of a camera, one after the other at a rate."""

    def __init__(self, number: int, fps: float):
        self.number, self.pause, self._lock = number, 1.0 / fps, Lock()
        self._frames: Iterator[Any] | None = None
        self._due = 0.0

    def get(self, number: int) -> Image.Image:
        """Wait until the next frame is due, and return the current one."""
        with self._lock:
            if self._frames is None:
                self._frames = _open(f"/dev/video{self.number}", format="v4l2").decode(video=0)
                self._due = monotonic()
            assert self._frames is not None
            frame = next(self._frames)
            while (rest := self._due - monotonic()) > 0:  # frames in between are read, so that none is old
                sleep(min(rest, 0.01))
                frame = next(self._frames)
            self._due = max(self._due + self.pause, monotonic())
            return frame.to_image()
