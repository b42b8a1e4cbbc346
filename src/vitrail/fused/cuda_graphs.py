"""CUDA graphs of calls: at small batches launching kernels takes longer than running them."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]
Recorder = Callable[[Run, Tensor], Run]
"""Captures a call on images as one that replays it."""

MAX_RECORDINGS = 8
"""Graphs in the cache, one for each shape; each holds the memory of its tensors."""

LARGEST = 64 * 3 * 224 * 224
"""Elements of an input above which launches are hidden by computation."""


class Recordings:
    """A function of images that is captured for each shape, and replayed.

    A shape is captured at its second call, so that a last smaller batch costs no capture. The least recently used
    graph is evicted.

    Args:
        run: the function; it must run the same kernels for every input of a shape.
        record: captures it for an input.
        held: returns the tensors that it also reads; they live as long as the graph.
    """

    def __init__(self, run: Run, record: Recorder, held: Callable[[], object]):
        self.run, self.record, self.held = run, record, held
        self.replays: OrderedDict[tuple[object, ...], tuple[Run, object] | None] = OrderedDict()

    def __call__(self, images: Tensor) -> Tensor:
        """Replay the graph, or run the function."""
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
    """Capture a function as a CUDA graph.

    It runs on a side stream before, so that kernels are built and caches are filled outside of the capture.
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
