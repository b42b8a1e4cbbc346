"""Bodies of prediction requests: JSON, multipart forms, or the bytes of one file."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from vitrail.serving.inputs import Content, check_count
from vitrail.serving.limits import Limits
from vitrail.serving.multipart import INPUTS, parse_form
from vitrail.serving.refusal import Refusal

_FLAGS = ("draw", "images")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass
class Upload:
    """A request, read and checked as far as that needs no model.

    Args:
        inputs: content of each input.
        single: whether it was sent as one input; its answer is then one result instead of a list.
        options: fields of the task's options.
        draw: whether drawings of the results are wanted.
        images: whether images that results consist of are wanted.
        fields: other fields of a form, or other keys of a JSON object.
    """

    inputs: list[Content]
    single: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    draw: bool = False
    images: bool = True
    fields: dict[str, Any] = field(default_factory=dict)


def parse_upload(
    body: bytes, content_type: str, query: bytes, kind: str, limits: Limits, strict: bool = True
) -> Upload:
    """Return the request of a body.

    Args:
        body: the body.
        content_type: its type.
        query: query string; it holds options if the body is a file.
        kind: kind of input of the model.
        limits: limits of the server.
        strict: whether unknown fields are an error.

    Raises:
        Refusal: it is malformed, or of another type.

    Example:
        >>> body = b'{"input": "a joy", "options": {"top": 1}}'
        >>> parse_upload(body, "application/json", b"", "text", Limits()).options
        {'top': 1}
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json":
        upload = _from_json(_loads(body))
    elif media == "multipart/form-data":
        upload = _from_form(body, content_type, kind, limits)
    elif (media == "text/plain") if kind == "text" else (media.startswith("image/") or media == _BYTES):
        upload = Upload([body], options=_query(query))
        for name in _FLAGS:
            if name in upload.options:
                setattr(upload, name, _flag(name, upload.options.pop(name)))
    else:
        own = "text/plain" if kind == "text" else f"image/* or {_BYTES}"
        raise Refusal(415, "media_type", f"Send application/json, multipart/form-data, or {own}.")
    if strict and upload.fields:
        raise _bad(f"There is no field of this name. Fields: input, inputs, options, {', '.join(_FLAGS)}.")
    check_count(len(upload.inputs), limits)
    return upload


_BYTES = "application/octet-stream"


def _from_json(values: Any) -> Upload:
    if not isinstance(values, dict):
        raise _bad("The body must be a JSON object.")
    single = "input" in values
    if single == ("inputs" in values):
        raise _bad("Give either `input` or `inputs`.")
    inputs = [values.pop("input")] if single else values.pop("inputs")
    if not isinstance(inputs, list) or not all(isinstance(each, str) for each in inputs):
        raise _bad("`input` must be a string, and `inputs` a list of strings.")
    options = values.pop("options", {})
    if not isinstance(options, dict):
        raise _bad("`options` must be an object.")
    flags = {name: _flag(name, values.pop(name)) for name in _FLAGS if name in values}
    return Upload(inputs, single, options, fields=values, **flags)


def _from_form(body: bytes, content_type: str, kind: str, limits: Limits) -> Upload:
    upload = Upload([])
    for part in parse_form(body, content_type, limits):
        if part.name in INPUTS:
            upload.inputs.append(bytes(part.data) if part.is_file or kind == "text" else _utf8(part.data))
        elif part.is_file:
            raise _bad("A file of a form is a part named input, inputs or file.")
        elif part.name == "options":
            upload.options = _loads(bytes(part.data))
            if not isinstance(upload.options, dict):
                raise _bad("`options` must be a JSON object.")
        elif part.name in _FLAGS:
            setattr(upload, part.name, _flag(part.name, _utf8(part.data)))
        else:
            upload.fields[part.name] = _utf8(part.data)
    upload.single = len(upload.inputs) == 1
    return upload


def _query(query: bytes) -> dict[str, Any]:
    """Return the options of a query string; numbers and booleans are read as JSON."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        raise _bad("The query string cannot be read.") from None
    return {name: _value(text) for name, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _bad("The body is not valid JSON in UTF-8.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _utf8(data: bytes | bytearray) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("A field of the form is not UTF-8.") from None


def _flag(name: str, value: Any) -> bool:
    found = value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
    if found is None:
        raise _bad(f"`{name}` must be true or false.")
    return found


def _bad(message: str) -> Refusal:
    return Refusal(400, "bad_request", message)
