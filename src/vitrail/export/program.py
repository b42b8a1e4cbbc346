"""Exported programs: any batch size, and any other size if the architecture takes it."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vitrail.errors import VitrailError
from vitrail.export.looped_points import LoopedAbstraction
from vitrail.export.padded_lstm import PaddedLSTM
from vitrail.export.reversed_lstm import ReversedLSTM
from vitrail.export.shared_tables import SharedTables
from vitrail.export.symbolic_neighborhoods import SymbolicNeighborhoodAttention
from vitrail.export.symbolic_windows import SymbolicWindowAttention
from vitrail.export.traced_sizes import compare_by_traced_sizes
from vitrail.parts.model import Model
from vitrail.parts.recurrent import LSTM
from vitrail.parts.set_abstraction import SetAbstraction
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.tasks import find_task
from vitrail.tasks.program import ProgramSpec


class Program(NamedTuple):
    """A program of a model.

    Args:
        exported: PyTorch's exported program.
        spec: its inputs and outputs.
        any_size: whether it takes other sizes than those the model was built for.
        reason: why it does not; empty if it does.
    """

    exported: ExportedProgram
    spec: ProgramSpec
    any_size: bool
    reason: str

    @property
    def sizes(self) -> dict[str, int | str]:
        """`any`, or the only size, of each dimension besides the batch."""
        return {axis.name: "any" if self.any_size else axis.own for axis in self.spec.axes}


def program_spec(model: Model) -> ProgramSpec:
    """Return inputs and outputs of the program of a model, by its task.

    Raises:
        VitrailError: models of its task have no program.

    Example:
        >>> from vitrail.models import create_model
        >>> program_spec(create_model("vit_tiny_patch16_224", depth=1)).inputs[0].shape
        ('batch', 3, 'height', 'width')
    """
    name = getattr(model, "task", "")
    if not name:
        raise VitrailError(f"{type(model).__name__} has no task, so there is nothing to export. Use create_model.")
    task: Any = find_task(name)
    if not hasattr(task, "program"):
        raise VitrailError(f"Models of the task {name} are not exported.\n{getattr(task, 'no_program', '')}".rstrip())
    return task.program(model)


def export_program(model: Model, sizes: str = "auto", most: int | None = None, plain: bool = False) -> Program:
    """Export a model with a symbolic batch size, and other symbolic sizes if it can be.

    Args:
        model: a model of a task that has programs.
        sizes: `any` needs symbolic sizes, `fixed` keeps the model's own, `auto` takes `any` if the architecture can.
        most: largest batch, for a runtime that plans its memory; sizes are fixed then.
        plain: whether PyTorch alone runs the program: an LSTM is an operation of PyTorch then, and not of this library.

    Raises:
        VitrailError: it cannot be exported, or not with symbolic sizes though `any` was asked for.
    """
    spec, reason = program_spec(model), "--sizes fixed" if most is None else f"memory is planned for batches to {most}"
    if most is not None and sizes == "any":
        raise VitrailError(
            "This runtime plans its memory for the largest inputs, so sizes are fixed: leave --sizes out."
        )
    if spec.grows and (sizes == "fixed" or most is not None):
        raise VitrailError(
            f"The cache of {model.variant} grows with each token, so a program of fixed sizes could not run it.\n"
            "Export it with --to onnx, openvino or triton, without --sizes fixed."
        )
    if sizes != "fixed" and most is None:
        try:
            return Program(
                _export(spec, symbolic(spec.module, _PLAIN_FORMS if plain else _FORMS), True), spec, True, ""
            )
        except (ExportFailed, VitrailError) as error:
            if sizes == "any" or spec.grows:
                own = " x ".join(str(size) for size in spec.own().values())
                remedy = "" if spec.grows else f"\nExport it for {own} with --sizes fixed."
                raise VitrailError(f"{model.variant} cannot be exported for any size: {error}{remedy}") from error
            reason = str(error)
    try:
        return Program(_export(spec, _fixed(spec.module, most is None), False, most), spec, False, reason)
    except ExportFailed as error:
        raise VitrailError(f"{model.variant} cannot be exported: {error}") from error


class ExportFailed(Exception):
    """PyTorch's reason why a module cannot be exported."""


_WINDOWS: dict[type, Any] = {WindowAttention: SymbolicWindowAttention}
_LOOPS: dict[type, Any] = {SetAbstraction: LoopedAbstraction}
_FORMS: dict[type, Any] = {
    **_WINDOWS,
    **_LOOPS,
    NeighborhoodAttention: SymbolicNeighborhoodAttention,
    LSTM: PaddedLSTM,
}
_PLAIN_FORMS: dict[type, Any] = {**_FORMS, LSTM: ReversedLSTM}


def symbolic(model: nn.Module, forms: Mapping[type, Callable[..., nn.Module]] = _FORMS) -> nn.Module:
    """Return a copy of a model whose window and neighborhood attentions keep sizes symbolic.

    Args:
        model: the model.
        forms: symbolic form of each type of mixer.

    Raises:
        VitrailError: a mixer has no such form.
    """
    copy, shared = deepcopy(model).eval(), SharedTables()
    for module in list(copy.modules()):
        for name, child in list(module.named_children()):
            form = next((form for kind, form in forms.items() if isinstance(child, kind)), None)
            if form is not None:
                setattr(module, name, form(child, shared))
    return copy


def _fixed(model: nn.Module, loops: bool) -> nn.Module:
    """Return a copy for one size; windows take their symbolic form: runtimes have no attention of five dimensions.

    Args:
        model: the model.
        loops: whether the runtime has loops.
    """
    forms = _LOOPS if loops else {}
    try:
        return symbolic(model, {**_WINDOWS, **forms})
    except VitrailError:
        return symbolic(model, forms)


def _export(spec: ProgramSpec, module: nn.Module, any_size: bool, most: int | None = None) -> ExportedProgram:
    """Export at the model's own sizes; with symbolic sizes at those of the trace, no two of which are equal.

    With a largest batch the bounds of all sizes must follow from it, so PyTorch's proofs are left in place.
    """
    dynamic = {"batch", *(axis.name for axis in spec.axes)} if any_size else {"batch"}
    traced = {"batch": 2, **({axis.name: axis.traced for axis in spec.axes} if any_size else spec.own())}
    dim: Any = Dim.DYNAMIC if most is None else Dim("batch", min=1, max=most)
    shapes = _by_argument(
        module, [{i: dim for i, each in enumerate(one.shape) if each in dynamic} for one in spec.inputs]
    )
    with quiet(), torch.no_grad(), compare_by_traced_sizes() if most is None else nullcontext():
        try:
            program = torch.export.export(module, spec.example(traced), dynamic_shapes=shapes)
        except Exception as error:  # PyTorch raises many kinds; each is a reason, shown to the user
            raise ExportFailed(_refusal(module, spec.example(traced)) or _first_line(error)) from error
    _check_sizes(program, spec, any_size)
    return program


def _refusal(module: nn.Module, inputs: tuple[Any, ...]) -> str | None:
    """Return why a model refuses inputs, or None. While it is traced, its error has symbols in place of numbers."""
    try:
        module(*inputs)
    except VitrailError as error:
        return _first_line(error)
    except Exception:  # noqa: BLE001 - PyTorch's reason is shown
        return None
    return None


def _by_argument(module: nn.Module, values: list[Any]) -> tuple[Any, ...]:
    """Return values of the inputs by the arguments of `forward`: those of `*given` are one tuple."""
    kinds = [one.kind for one in signature(module.forward).parameters.values()]
    if Parameter.VAR_POSITIONAL not in kinds:
        return tuple(values)
    single = kinds.index(Parameter.VAR_POSITIONAL)
    return (*values[:single], tuple(values[single:]))


def _check_sizes(program: ExportedProgram, spec: ProgramSpec, any_size: bool) -> None:
    """Compare a program with its model at its own size, and at sizes off the patch and window grids.

    Raises:
        ExportFailed: it does not run, or its outputs differ.
    """
    run, module = program.module(check_guards=False), spec.module.eval()
    for sizes in _quick_sizes(spec) if any_size else [{"batch": 1, **spec.own()}]:
        shown = " x ".join(str(size) for name, size in sizes.items() if name != "batch")
        inputs = spec.example(sizes, seed=1)
        with torch.no_grad():
            try:
                got, want = outputs_of(run(*inputs)), outputs_of(module(*inputs))
            except Exception as error:  # as above
                raise ExportFailed(f"at {shown}: {_first_line(error)}") from error
        if not (all(map(_close, got, want)) if spec.agree is None else spec.agree(got, want)[1]):
            raise ExportFailed(f"at {shown} its outputs differ from the model's")


def _quick_sizes(spec: ProgramSpec) -> list[dict[str, int]]:
    """Return the sizes that are tried before a file is written."""
    count = min((len(axis.quick) for axis in spec.axes), default=1)
    quick = [{"batch": 1, **{axis.name: axis.quick[i] for axis in spec.axes}} for i in range(count)]
    return quick + spec.small_sizes()


def _close(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and torch.allclose(got, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


def outputs_of(found: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return one or several outputs as a tuple.

    Example:
        >>> len(outputs_of(torch.zeros(1))), len(outputs_of((torch.zeros(1), torch.zeros(2))))
        (1, 2)
    """
    return (found,) if isinstance(found, Tensor) else tuple(found)


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
