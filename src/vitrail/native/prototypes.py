"""Prototypes of native functions, parsed from the C++ that defines them."""

import ctypes
import re
from itertools import product

# Names of dtypes in symbols; "mixed" has the residual in fp32 and products in bf16.
_TYPES = ("float32", "bfloat16", "float16")
_SUFFIXES = (*_TYPES, *("_".join(pair) for pair in product(_TYPES, repeat=2)), "mixed")
_NUMBERS = {"int": ctypes.c_int, "long": ctypes.c_long, "float": ctypes.c_float}
_DEFINITION = re.compile(r"\b(void|int|long) (vitrail_\w+?)(##name)?\(([^{};]*?)\) \{")
_MACRO = re.compile(r"^#define (\w+)\((\w+)\) (.*)$", re.MULTILINE)

Prototype = tuple[type | None, list[type]]


def prototypes(text: str) -> dict[str, Prototype]:
    """Parse result and argument types of the functions `vitrail_*` in C++; names in macros are expanded per suffix.

    Example:
        >>> prototypes("int vitrail_pack(const void* from, long rows) { }")["vitrail_pack"]
        (<class 'ctypes.c_int'>, [<class 'ctypes.c_void_p'>, <class 'ctypes.c_long'>])
        >>> sorted(prototypes("void vitrail_pool_##name(float eps) { }"))[:2]
        ['vitrail_pool_bfloat16', 'vitrail_pool_bfloat16_bfloat16']
    """
    text = re.sub(r"\s*\\?\n\s*", " ", re.sub(r"//.*", "", _expand_arguments(text)))
    found: dict[str, Prototype] = {}
    for result, name, of_macro, arguments in _DEFINITION.findall(text):
        types = [_type_of(argument) for argument in arguments.split(",") if argument.strip()]
        for suffix in _SUFFIXES if of_macro else ("",):
            found[name + suffix] = (_NUMBERS.get(result), types)
    return found


def bind(library: ctypes.CDLL, text: str) -> None:
    """Set the prototypes of a library's functions."""
    for name, (result, arguments) in prototypes(text).items():
        if hasattr(library, name):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments


def _expand_arguments(text: str) -> str:
    """Expand macros of one parameter in argument lists, such as `WEIGHTS(w)` of int8.h."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    for name, parameter, body in _MACRO.findall(joined):
        if "(" not in body and "{" not in body:
            for value in set(re.findall(rf"\b{name}\((\w+)\)", text)):
                text = text.replace(f"{name}({value})", re.sub(rf"\b{parameter}\b", value, body).replace("##", ""))
    return text


def _type_of(argument: str) -> type:
    return ctypes.c_void_p if "*" in argument else _NUMBERS[argument.split()[0]]
