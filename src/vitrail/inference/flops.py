"""Parameter and multiply-add counts of a model, computed on the meta device without memory for weights."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.parts.exported_file import check_layers

# Operators without a matrix product. The others are registered in the counter; an operator in neither list would count
# as zero, so it raises.
_FREE = {
    "_adaptive_avg_pool2d",
    "_log_softmax",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_safe_softmax",
    "_softmax",
    "_to_copy",
    "_unsafe_index",
    "_unsafe_view",
    "_upsample_bicubic2d_aa",
    "_upsample_bilinear2d_aa",
    "amax",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "avg_pool2d",
    "bernoulli_",
    "cat",
    "clone",
    "constant_pad_nd",
    "copy_",
    "cumsum",
    "embedding",
    "empty",
    "empty_like",
    "fill_",
    "floor_divide",
    "full",
    "gather",
    "index",
    "index_add",
    "index_put_",
    "index_select",
    "linalg_vector_norm",
    "linspace",
    "logsumexp",
    "max",
    "max_pool2d_with_indices",
    "mean",
    "native_batch_norm",
    "native_dropout",
    "native_group_norm",
    "native_layer_norm",
    "new_empty",
    "new_ones",
    "new_zeros",
    "one_hot",
    "ones",
    "ones_like",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reflection_pad2d",
    "repeat",
    "repeat_interleave",
    "replication_pad2d",
    "roll",
    "scalar_tensor",
    "scatter",
    "scatter_add_",
    "sort",
    "split_with_sizes",
    "stack",
    "std_mean",
    "sum",
    "tanh",
    "topk",
    "tril",
    "unsafe_split",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_nearest2d",
    "var",
    "var_mean",
    "zeros",
    "zeros_like",
}


class Uncounted(VitrailError):
    """The multiply-adds of the model cannot be counted; the model itself may run."""


_DEPENDING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def count_parameters(model: nn.Module | str) -> int:
    """Count the parameters of a model, or of a variant named in the catalogue.

    Example:
        >>> count_parameters("vit_tiny_patch16_224")
        5717416
    """
    return sum(parameter.numel() for parameter in meta_model(model).parameters())


def count_macs(model: nn.Module | str, size: int | tuple[int, int] | None = None) -> int:
    """Count the multiply-adds for one image or text, including those of attention.

    One multiply-add is two floating-point operations. Norms, activations, pooling and additions are not counted, as in
    the tables of the papers.

    Args:
        model: a model made by `create_model`, or a name in the catalogue.
        size: side of a square image, or its height and width; by default the image size of the variant. For text the
            number of tokens, by default 128 (or the model's most), in an encoder-decoder for both sides.

    Raises:
        Uncounted: the model runs an operator without a counting rule, or with an output shape that depends on values.

    Example:
        >>> round(count_macs("vit_tiny_patch16_224") / 1e9, 3)
        1.254
    """
    model = meta_model(model)
    inputs = meta_inputs(model, size)
    with torch.no_grad(), NothingUncounted(), FlopCounterMode(display=False) as counter:
        whole = on_meta(model).eval().requires_grad_(False)
        getattr(whole, "dense", whole)(*inputs)  # of a detector, the part whose cost does not depend on the objects
    return counter.get_total_flops() // 2


_USUAL_SIDE = 64
"""Side of the image for models of images of any size, such as restorers."""


def meta_inputs(model: nn.Module, size: int | tuple[int, int] | None) -> list[torch.Tensor]:
    """Return inputs on the meta device: one image, or token ids for each side of a text model.

    Example:
        >>> [x.shape for x in meta_inputs(meta_model("vit_tiny_patch16_224"), 64)]
        [torch.Size([1, 3, 64, 64])]
    """
    config: Any = model.config
    if not (hasattr(config, "preprocess") or hasattr(config, "upsampler")):
        length: Any = size or min(128, getattr(config, "max_length", 128))
        return [torch.zeros(1, length, dtype=torch.long, device="meta")] * (2 if hasattr(model, "encode") else 1)
    side: Any = size or (config.preprocess.size if hasattr(config, "preprocess") else _USUAL_SIDE)
    height, width = (side, side) if isinstance(side, int) else side
    return [torch.zeros(1, config.in_channels, height, width, device="meta")]


def counted_macs(model: nn.Module | str, size: int | tuple[int, int] | None = None) -> tuple[int | None, str]:
    """Return the multiply-adds and an empty string, or None and the reason why they cannot be counted.

    Example:
        >>> counted_macs("vit_tiny_patch16_224")
        (1253683200, '')
    """
    try:
        return count_macs(model, size), ""
    except Uncounted as reason:
        return None, str(reason)


def meta_model(model: nn.Module | str) -> nn.Module:
    """Return a model, or that of a name on the meta device.

    Example:
        >>> next(meta_model("vit_tiny_patch16_224").parameters()).device.type
        'meta'
    """
    if isinstance(model, nn.Module):
        check_layers(model, "its cost is counted layer by layer")
        return model
    with torch.device("meta"):
        return create_model(model)


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the meta device; `to` would move the caller's model in-place.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> on_meta(layer).weight.device.type, layer.weight.device.type
        ('meta', 'cpu')
    """
    memo: dict[int, Any] = {id(t): torch.empty_like(t, device="meta") for t in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    return deepcopy(model, memo)


class NothingUncounted(TorchDispatchMode):
    """Raise at an operator without a counting rule, unless it is listed as free."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        name = func.overloadpacket.__name__
        free = func.is_view or torch.Tag.pointwise in func.tags or name in _FREE
        unknown = not free and func.overloadpacket not in flop_registry
        if unknown and not _DEPENDING.isdisjoint(func.tags):
            raise Uncounted(f"Cannot count multiply-adds: '{func}' depends on values, and none are computed for it.")
        if unknown:
            raise Uncounted(
                f"Cannot count multiply-adds: there is no counting rule for '{func}'.\n"
                "Register one in the file of the model, in floating-point operations: 2 a multiply-add.\n"
                "  from torch.utils.flop_counter import register_flop_formula\n"
                f"  @register_flop_formula(torch.ops.{func.overloadpacket})\n"
                "  def cost(*shapes, out_shape=None, **options): return 0"
            )
        return func(*args, **(kwargs or {}))
