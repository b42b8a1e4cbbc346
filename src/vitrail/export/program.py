"""Exported programs: any batch size, and any image size if the architecture takes it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vitrail.errors import VitrailError
from vitrail.export.symbolic_windows import SharedTables, SymbolicWindowAttention
from vitrail.export.traced_sizes import compare_by_traced_sizes
from vitrail.parts.token_mixers.window_attention import WindowAttention

OFF_GRID = ((64, 64), (97, 131), (64, 40))
"""Image sizes that a program of any size must take: none is a multiple of all windows and patches."""


class Program(NamedTuple):
    """A program of a model.

    Args:
        exported: PyTorch's exported program.
        any_size: whether it takes other image sizes than the one it was exported at.
        reason: why it does not; empty if it does.
        size: side of the image it was exported at.
    """

    exported: ExportedProgram
    any_size: bool
    reason: str
    size: int


def export_program(model: Any, sizes: str = "auto") -> Program:
    """Export a classifier with a symbolic batch size, and symbolic height and width if it can be.

    Args:
        model: a classifier.
        sizes: `any` needs symbolic sizes, `fixed` keeps the model's own, `auto` takes `any` if the architecture can.

    Raises:
        VitrailError: it cannot be exported, or not with symbolic sizes though `any` was asked for.
    """
    size, reason = model.preprocess.size, "--sizes fixed"
    if sizes != "fixed":
        try:
            return Program(_export(symbolic(model), size, any_size=True), True, "", size)
        except (ExportFailed, VitrailError) as error:
            if sizes == "any":
                raise VitrailError(
                    f"{model.variant} cannot be exported for any image size: {error}\n"
                    f"Export it for {size} x {size} with --sizes fixed."
                ) from error
            reason = str(error)
    try:
        return Program(_export(deepcopy(model).eval(), size, any_size=False), False, reason, size)
    except ExportFailed as error:
        raise VitrailError(f"{model.variant} cannot be exported: {error}") from error


class ExportFailed(Exception):
    """PyTorch's reason why a module cannot be exported."""


def symbolic(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose window attentions keep sizes symbolic."""
    copy, shared = deepcopy(model).eval(), SharedTables()
    for module in list(copy.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, WindowAttention):
                setattr(module, name, SymbolicWindowAttention(child, shared))
    return copy


def _export(model: Any, size: int, any_size: bool) -> ExportedProgram:
    """Export at the model's own size; with symbolic sizes at an oblong one, so that no two sides are equal."""
    height, width = trace_size(size) if any_size else (size, size)
    shape = (2, model.config.in_channels, height, width)
    dims: dict[int, Any] = {0: Dim.DYNAMIC}
    if any_size:
        dims |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with quiet(), torch.no_grad(), compare_by_traced_sizes():
        try:
            program = torch.export.export(model, (images,), dynamic_shapes=(dims,))
        except Exception as error:  # PyTorch raises many kinds; each is a reason, shown to the user
            raise ExportFailed(_first_line(error)) from error
    _check_shapes(program, model, images[..., :size, :size], any_size)
    return program


def trace_size(side: int) -> tuple[int, int]:
    """Return height and width to trace at: different, and so large that no map or window count of a stage is 1."""
    height = max(2 * side + 64, 576)
    return height, height + 96


def _check_shapes(program: ExportedProgram, model: nn.Module, images: Tensor, any_size: bool) -> None:
    """Compare a program with its model on one image, and on sizes off the patch and window grids.

    PyTorch's guards are not checked: exporting notes of every symbolic size whether it was 1, since strides depend on
    it. No operation does, so the numbers decide.

    Raises:
        ExportFailed: it does not run, or its logits differ.
    """
    run = program.module(check_guards=False)
    for height, width in ((images.shape[2], images.shape[2]), *(OFF_GRID if any_size else ())):
        batch = torch.randn(1, images.shape[1], height, width, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            try:
                got, want = run(batch), model(batch)
            except Exception as error:  # as above
                raise ExportFailed(f"at {height} x {width}: {_first_line(error)}") from error
        if not torch.allclose(got, want, rtol=1e-3, atol=1e-4 * float(want.abs().max())):
            raise ExportFailed(f"at {height} x {width} its logits differ from the model's")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[-400:]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of the exporters from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of the plain model, the reference of every exported file."""
    with torch.inference_mode():
        return model(images)
