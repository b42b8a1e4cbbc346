"""Arrays of a page: tensors as base64, bit for bit."""

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DTYPES = {"f32": np.dtype("<f4"), "i32": np.dtype("<i4"), "i16": np.dtype("<i2"), "u8": np.dtype("u1")}


def pack(values: Tensor) -> dict[str, Any]:
    """Return a tensor as a JSON value: fp32, or the smallest of int16 and int32, or bytes of a Boolean tensor.

    Example:
        >>> pack(torch.tensor([[1, 2]]))
        {'shape': [1, 2], 'type': 'i16', 'data': 'AQACAA=='}
        >>> unpack(pack(torch.tensor([0.1]))) == 0.1
        tensor([True])
    """
    values = values.detach().cpu()
    if values.dtype == torch.bool:
        kind = "u8"
    elif values.is_floating_point():
        kind = "f32"
    else:
        kind = "i16" if values.numel() == 0 or values.abs().max() < 1 << 15 else "i32"
    raw = values.numpy() if values.dtype != torch.bfloat16 else values.float().numpy()
    data = np.ascontiguousarray(raw).astype(_DTYPES[kind]).tobytes()
    return {"shape": list(values.shape), "type": kind, "data": base64.b64encode(data).decode()}


def unpack(packed: dict[str, Any]) -> Tensor:
    """Return the tensor of `pack`.

    Example:
        >>> unpack(pack(torch.tensor([[1.0, 2.0]]))).tolist()
        [[1.0, 2.0]]
    """
    flat = np.frombuffer(base64.b64decode(packed["data"]), _DTYPES[packed["type"]])
    return torch.from_numpy(flat.copy()).reshape(packed["shape"])


def packed_bytes(count: int) -> int:
    """Return the bytes of `count` fp32 numbers in a page.

    Example:
        >>> packed_bytes(3)
        16
    """
    return count * 16 // 3
