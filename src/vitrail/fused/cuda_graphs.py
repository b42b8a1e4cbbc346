"""Recorded calls: at small batches a GPU waits for its next order longer than it computes, so all are given at once."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]

MAX_RECORDINGS = 8
"""Recordings that are kept, each for one shape; each holds the memory of its tensors."""

LARGEST = 64 * 3 * 224 * 224
"""Numbers of pictures from which on a GPU has enough to do that orders come in time."""


class Recordings:
    """A function of pictures that is recorded for each shape, and replayed.

    A shape is recorded when it comes the second time, so a last batch of odd size costs no recording. The one that was
    used longest ago makes room.

    Args:
        run: the function; it must do the same for every picture of a shape.
        record: makes a replay of it for pictures like these.
        held: returns what the function reads besides, which must live as long as a replay does.
    """

    def __init__(self, run: Run, record: Callable[[Run, Tensor], Run], held: Callable[[], object]):
        self.run, self.record, self.held = run, record, held
        self.replays: OrderedDict[tuple[object, ...], tuple[Run, object] | None] = OrderedDict()

    def __call__(self, images: Tensor) -> Tensor:
        """Replay, or run."""
        if images.numel() > LARGEST or images.requires_grad or torch.compiler.is_compiling():
            return self.run(images)
        shape = (*images.shape, images.dtype, images.device)
        if shape not in self.replays:
            self._keep(shape, None)
            return self.run(images)
        replay = self.replays[shape] or (self.record(self.run, images), self.held())
        self._keep(shape, replay)
        return replay[0](images)

    def _keep(self, shape: tuple[object, ...], replay: tuple[Run, object] | None) -> None:
        self.replays[shape] = replay
        self.replays.move_to_end(shape)
        if len(self.replays) > MAX_RECORDINGS:
            self.replays.popitem(last=False)


def record(run: Run, images: Tensor) -> Run:
    """Record a function as a CUDA graph.

    It runs beforehand on a stream of its own, so that kernels are built and tables are made outside of the recording.
    """
    given = images.clone()
    side = torch.cuda.Stream(images.device)
    side.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(side):
        for _ in range(2):
            run(given)
    torch.cuda.current_stream(images.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = run(given)

    def replay(images: Tensor) -> Tensor:
        given.copy_(images)
        graph.replay()
        return answer.clone()  # the next replay writes over it

    return replay
