"""Zero-copy access to the pixels of a Pillow image through the Arrow C data interface."""

import ctypes

from PIL import Image


class _ArrowArray(ctypes.Structure):
    """`ArrowArray` of the Arrow C data interface, through which Pillow exports its memory."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def memory(image: Image.Image) -> tuple[int, object] | None:
    """Return the address of the pixels and the object that owns them; None if they are not contiguous.

    Example:
        >>> address, holder = memory(Image.new("L", (2, 1), 7))
        >>> ctypes.string_at(address, 2)
        b'\\x07\\x07'
    """
    image.load()
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:  # larger than one allocation block of Pillow
        return None
    array = ctypes.cast(_pointer_in(capsule, b"arrow_array"), ctypes.POINTER(_ArrowArray)).contents
    values = array.children[0].contents if array.n_children else array
    return values.buffers[1], (image, capsule)
