"""Native k-means of one dimension, and linear layers with weights of four bits; callers check the arguments."""

import ctypes

import torch
from torch import Tensor

from vitrail.errors import ResourceError
from vitrail.native.build import library
from vitrail.native.ffi import at, invoke, nested
from vitrail.native.prototypes import Arguments

BLOCK = 32
"""Columns of a block of codes: a byte has columns i and 16 + i of its block."""


def kmeans(values: Tensor, weights: Tensor, k: int) -> Tensor:
    """Return the centers of ascending values, both `(n,)` of fp64."""
    centers = torch.empty(k, dtype=torch.float64)
    if not library("kmeans").vitrail_kmeans(at(values), at(weights), ctypes.c_long(len(values)), k, at(centers)):
        raise ResourceError(f"The clusters of {len(values):,} weights do not fit in memory.")
    return centers


def lookup_dense(codes: Tensor, tables: Tensor, scales: Tensor, rows: int, columns: int) -> Tensor:
    """Return the fp32 matrix `(out, 32 * blocks)` of packed codes; `rows` share a table, `columns` a scale."""
    outputs, blocks = codes.shape[0], codes.shape[1] * 2 // BLOCK
    dense = torch.empty(outputs, blocks * BLOCK)
    invoke(
        library("lookup").vitrail_lookup_dense,
        weights=_packed(codes, tables, scales, rows, columns),
        dense=at(dense),
        threads=torch.get_num_threads(),
    )
    return dense


def lookup_linear(x: Tensor, codes: Tensor, tables: Tensor, scales: Tensor, rows: int, columns: int) -> Tensor:
    """Return `x W^T` of fp32 rows `(M, 32 * blocks)`."""
    y = torch.empty(len(x), len(codes))
    invoke(
        library("lookup").vitrail_lookup_linear,
        x=at(x),
        rows=len(x),
        weights=_packed(codes, tables, scales, rows, columns),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def _packed(codes: Tensor, tables: Tensor, scales: Tensor, rows: int, columns: int) -> Arguments:
    """Return the argument struct of packed codes."""
    sizes = {"outputs": codes.shape[0], "blocks": codes.shape[1] * 2 // BLOCK}
    shared = {"tables_every": rows, "blocks_of_scale": columns // BLOCK}
    return nested("CodesArgs", codes=codes, tables=tables, scales=scales, **sizes, **shared)
