"""Multipart forms, parsed in memory: no part ever reaches a file."""

from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vitrail.serving.limits import Limits
from vitrail.serving.refusal import Refusal, too_large

INPUTS = ("input", "inputs", "file")
"""Names of the parts that are inputs."""
FIELDS = 8
"""Most parts that are no inputs."""


@dataclass
class Part:
    """One part of a form.

    Args:
        name: name of the field.
        is_file: whether the client sent a file name.
        data: content.
    """

    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)


class _Collector:
    """Callbacks of the parser; the parts that it has seen."""

    def __init__(self, limits: Limits):
        self.limits, self.parts, self.ended = limits, list[Part](), False
        self._header, self._value, self._size = bytearray(), bytearray(), 0
        self._disposition = b""

    def callbacks(self) -> Any:
        """Return the functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self.parts[-1].data.extend(data[start:end]),
            "on_header_field": lambda data, start, end: self._add(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self.limits.inputs + FIELDS:
            raise too_large("The form", self.limits.inputs + FIELDS, "parts")
        self.parts.append(Part())
        self._size, self._disposition = 0, b""

    def _add(self, target: bytearray, data: bytes) -> None:
        self._size += len(data)
        if self._size > self.limits.header:
            raise Refusal(431, "headers", f"The headers of a part are longer than {self.limits.header:,} bytes.")
        target.extend(data)

    def _header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise Refusal(400, "bad_request", "A part of the form has no name.")
        self.parts[-1].name = options[b"name"].decode("utf-8", "replace")
        self.parts[-1].is_file = b"filename" in options

    def _end(self) -> None:
        self.ended = True


def parse_form(body: bytes, content_type: str, limits: Limits) -> list[Part]:
    r"""Return the parts of a form.

    Raises:
        Refusal: it is no form, incomplete, or above a limit.

    Example:
        >>> body = b'--b\r\nContent-Disposition: form-data; name="input"\r\n\r\na joy\r\n--b--\r\n'
        >>> [part] = parse_form(body, "multipart/form-data; boundary=b", Limits())
        >>> part.name, bytes(part.data)
        ('input', b'a joy')
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Refusal(400, "bad_request", "The form has no valid boundary.")
    collector = _Collector(limits)
    try:
        parser = MultipartParser(boundary, collector.callbacks(), max_header_size=limits.header + 2)
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise Refusal(400, "bad_request", "The form cannot be read.") from None
    if not collector.ended:
        raise Refusal(400, "bad_request", "The form ends too early.")
    return collector.parts
