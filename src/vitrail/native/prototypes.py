"""Prototypes of native functions and their argument structs, parsed from the C++ that declares them.

A function with many arguments takes one struct whose name ends in `Args` (`arguments.h`). Its ctypes mirror is built
from the same declaration, so names and order of the fields cannot differ; sizes are compared when a library is loaded.
"""

import ctypes
import re
from itertools import product
from threading import Lock
from typing import Any, ClassVar

from vitrail.errors import VitrailError

# Names of dtypes in symbols; "mixed" has the residual in fp32 and products in bf16.
_TYPES = ("float32", "bfloat16", "float16")
_SUFFIXES = (*_TYPES, *("_".join(pair) for pair in product(_TYPES, repeat=2)), "mixed")
_NUMBERS = {"int": ctypes.c_int, "long": ctypes.c_long, "float": ctypes.c_float, "int64_t": ctypes.c_int64}
_DEFINITION = re.compile(r"\b(void|int|long) (vitrail_\w+?)(##name)?\(([^{};]*?)\) \{")
_STRUCT = re.compile(r"\bstruct (\w+Args) \{([^{}()]*)\};")
_DECLARATION = re.compile(r"(?:const )?(\w+) ?(.+)")
_DECLARATOR = re.compile(r"(\**) ?(\w+)(?:\[(\d+)\])?")

Prototype = tuple[type | None, list[type]]


class Arguments(ctypes.Structure):
    """Argument struct of a native function."""

    __slots__ = ()
    names: ClassVar[frozenset[str]] = frozenset()


def filled(struct: type[Arguments], values: dict[str, Any]) -> Arguments:
    """Return a struct with a value for each field.

    Raises:
        TypeError: a field is missing or unknown, or a value has a wrong type.

    Example:
        >>> struct = structs("struct RowsArgs { long rows; int threads; };")["RowsArgs"]
        >>> filled(struct, {"rows": 5, "thread": 1})
        Traceback (most recent call last):
        TypeError: RowsArgs: missing ['threads'], unknown ['thread']
    """
    if values.keys() != struct.names:
        missing, unknown = sorted(struct.names - values.keys()), sorted(values.keys() - struct.names)
        raise TypeError(f"{struct.__name__}: missing {missing}, unknown {unknown}")
    return struct(**values)


def structs(text: str) -> dict[str, type[Arguments]]:
    """Return the argument structs of C++ with their fields; the same declaration gives the same class.

    Example:
        >>> found = structs("struct InArgs { const void* x; long rows; }; struct OutArgs { InArgs in; float* y; };")
        >>> [(name, kind.__name__) for name, kind in found["OutArgs"]._fields_]
        [('in', 'InArgs'), ('y', 'c_void_p')]
    """
    bodies = dict(_STRUCT.findall(_one_line(text)))
    found: dict[str, type[Arguments]] = {}

    def resolve(name: str) -> type[Arguments]:
        if name not in found:
            found[name] = _struct(name, tuple(_fields(bodies[name])))
        return found[name]

    def _fields(body: str) -> list[tuple[str, type]]:
        return [
            (name, _field_type(kind, pointer, length))
            for declaration in filter(None, map(str.strip, body.split(";")))
            for kind, pointer, name, length in _declared(declaration)
        ]

    def _field_type(kind: str, pointer: bool, length: int) -> type:
        one = ctypes.c_void_p if pointer else _NUMBERS.get(kind) or resolve(kind)
        return one * length if length else one

    for name in bodies:
        resolve(name)
    return found


def prototypes(text: str) -> dict[str, Prototype]:
    """Parse result and argument types of the functions `vitrail_*` in C++; names in macros are expanded per suffix.

    Example:
        >>> prototypes("int vitrail_pack(const void* from, long rows) { }")["vitrail_pack"]
        (<class 'ctypes.c_int'>, [<class 'ctypes.c_void_p'>, <class 'ctypes.c_long'>])
        >>> sorted(prototypes("void vitrail_pool_##name(float eps) { }"))[:2]
        ['vitrail_pool_bfloat16', 'vitrail_pool_bfloat16_bfloat16']
    """
    known = structs(text)
    found: dict[str, Prototype] = {}
    for result, name, of_macro, arguments in _DEFINITION.findall(_one_line(text)):
        types = [_type_of(argument, known) for argument in arguments.split(",") if argument.strip()]
        for suffix in _SUFFIXES if of_macro else ("",):
            found[name + suffix] = (_NUMBERS.get(result), types)
    return found


def bind(library: ctypes.CDLL, text: str) -> None:
    """Set the prototypes of a library's functions, and compare the sizes of their argument structs.

    Raises:
        VitrailError: a struct has another size in the library.
    """
    for name, (result, arguments) in prototypes(text).items():
        if hasattr(library, name):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    for name, struct in structs(text).items():
        compiled = getattr(library, f"vitrail_sizeof_{name}", None)
        if compiled is not None and compiled() != ctypes.sizeof(struct):
            raise VitrailError(f"{name} has {compiled()} bytes in the library and {ctypes.sizeof(struct)} in Python.")


def _struct(name: str, fields: tuple[tuple[str, type], ...]) -> type[Arguments]:
    with _LOCK:  # libraries are loaded in threads, and ctypes compares classes by identity
        if (name, fields) not in _STRUCTS:
            names = frozenset(field for field, _ in fields)
            _STRUCTS[name, fields] = type(
                name, (Arguments,), {"__slots__": (), "_fields_": list(fields), "names": names}
            )
        return _STRUCTS[name, fields]


_LOCK = Lock()
_STRUCTS: dict[tuple[str, tuple[tuple[str, type], ...]], type[Arguments]] = {}


def _declared(declaration: str) -> list[tuple[str, bool, str, int]]:
    """Return type, whether it is a pointer, name and array length of each field of a declaration."""
    parts = _DECLARATION.fullmatch(declaration)
    assert parts, declaration
    found = [_DECLARATOR.fullmatch(each.strip()) for each in parts[2].split(",")]
    return [(parts[1], bool(each[1]), each[2], int(each[3] or 0)) for each in found if each]


def _one_line(text: str) -> str:
    return re.sub(r"\s*\\?\n\s*", " ", re.sub(r"//.*", "", text))


def _type_of(argument: str, known: dict[str, type[Arguments]]) -> type:
    """Return the ctypes type of an argument: a reference to a struct, a pointer or a number."""
    words = argument.replace("&", " & ").split()
    if "&" in words:
        return ctypes.POINTER(known[words[1]])
    return ctypes.c_void_p if "*" in argument else _NUMBERS[words[0]]
