"""Argument structs: the ctypes mirror has the fields of the C++ declaration, and each call gives all of them."""

import copy
import ctypes
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.native.build import library, refusal
from vitrail.native.ffi import Operand, invoke, nested
from vitrail.native.prototypes import bind, filled, structs

TEXT = """
// Comment; with struct OtherArgs { int x; } in it
struct InnerArgs {
    const float* weight;  // (outputs, inputs); or null
    long strides[3];
};
struct OuterArgs {
    int batch, tokens;
    InnerArgs first, second;
    float eps;
    void* y;
};
"""


def test_fields_are_those_of_the_declaration() -> None:
    found = structs(TEXT)
    inner, outer = found["InnerArgs"], found["OuterArgs"]
    assert set(found) == {"InnerArgs", "OuterArgs"}
    assert inner._fields_ == [("weight", ctypes.c_void_p), ("strides", ctypes.c_long * 3)]
    assert [name for name, *_ in outer._fields_] == ["batch", "tokens", "first", "second", "eps", "y"]
    assert ctypes.sizeof(inner) == 32 and ctypes.sizeof(outer) == 8 + 2 * 32 + 16
    assert structs(TEXT)["OuterArgs"] is outer


def test_threads_get_the_same_class() -> None:
    """Libraries are loaded in threads, and a nested struct must have the class that its field declares."""
    for i in range(20):
        text = TEXT.replace("InnerArgs", f"Inner{i}Args").replace("OuterArgs", f"Outer{i}Args")
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _, text=text: structs(text), range(8)))
        assert len({each[f"Outer{i}Args"] for each in found}) == 1
        inner = dict(found[0][f"Outer{i}Args"]._fields_)["first"]
        assert {each[f"Inner{i}Args"] for each in found} == {inner}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": None}, r"InnerArgs: missing \['strides'\], unknown \[\]"),
        ({"weight": None, "strides": (1, 2, 3), "bias": 1}, r"missing \[\], unknown \['bias'\]"),
        ({"weights": None, "strides": (1, 2, 3)}, r"missing \['weight'\], unknown \['weights'\]"),
        ({"weight": 1.5, "strides": (1, 2, 3)}, "cannot be converted to pointer"),
        ({"weight": None, "strides": (1, 2, 3, 4)}, "3"),
    ],
)
def test_wrong_fields_are_named(given: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        filled(structs(TEXT)["InnerArgs"], given)


@pytest.mark.parametrize("size", [32, 40])
def test_another_size_in_the_library_is_an_error_by_name(size: int) -> None:
    compiled = SimpleNamespace(vitrail_sizeof_InnerArgs=lambda: size)
    if size == 32:
        bind(compiled, TEXT)  # type: ignore[arg-type]
    else:
        with pytest.raises(VitrailError, match="InnerArgs has 40 bytes in the library and 32 in Python"):
            bind(compiled, TEXT)  # type: ignore[arg-type]


def test_a_copy_points_at_its_own_tensors() -> None:
    operand = Operand("NormArgs", weight=torch.ones(16), bias=None, eps=1e-5)
    copied = copy.deepcopy(operand)
    assert copied.args.weight == copied.fields["weight"].data_ptr() != operand.args.weight
    assert copied.args.bias is None and copied.args.eps == operand.args.eps


def test_a_strided_tensor_is_refused() -> None:
    with pytest.raises(AssertionError):
        nested("NormArgs", weight=torch.ones(32)[::2], bias=None, eps=1e-5)


@pytest.mark.skipif(refusal(torch.float32) is not None, reason="no compiled operations here")
def test_a_call_with_a_wrong_field_does_not_reach_the_library() -> None:
    with pytest.raises(TypeError, match=r"LinearArgs: missing .*'weights'.*unknown .*'packed'"):
        invoke(library("gemm").vitrail_linear_float32, x=None, rows=1, packed=None)
