"""Language models token by token: equality of their forms, time of one more token, bytes of state."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vitrail.generation.decoding import LanguageDecoding
from vitrail.layouts import TokenSequence
from vitrail.parts.recurrent import LSTM
from vitrail.parts.sequence_model import SequenceModel
from vitrail.parts.token_mixers.retention import (
    ChunkwiseRetention,
    ParallelRetention,
    RecurrentRetention,
    use_retention,
)

RETNET, CACHED, WHOLE, RECURRENT = "RetNet, recurrent", "Transformer, cache", "Transformer, no cache", "LSTM"


KINDS = (RETNET, CACHED, WHOLE, RECURRENT)


HEADS, VOCABULARY = 4, 128


def agreement(retnet: SequenceModel, gpt: SequenceModel, lstm: LSTM, dim: int, length: int) -> dict[str, Any]:
    """Return the largest difference between forms, as a share of the largest output."""
    ids = torch.randint(VOCABULARY, (1, length))
    parallel = use_retention(retnet, ParallelRetention())(ids)
    forms = {
        "recurrent": use_retention(retnet, RecurrentRetention())(ids),
        "chunkwise": use_retention(retnet, ChunkwiseRetention(max(2, length // 5)))(ids),
    }
    use_retention(retnet, ParallelRetention())
    found = {f"RetNet, {name} against parallel": _apart(out, parallel) for name, out in forms.items()}
    for name, model in (("RetNet, state carried", retnet), ("Transformer, cache", gpt)):
        decoding = LanguageDecoding(model, 1, length)
        steps = torch.stack([decoding.feed(ids[:, i : i + 1])[0] for i in range(length)])
        found[f"{name}, against the whole"] = _apart(steps, model(ids)[0].log_softmax(-1))
    x, state, outputs = torch.randn(1, length, dim), None, []
    for i in range(length):
        y, state = lstm.cells(x[:, i : i + 1], state)
        outputs.append(y)
    found["LSTM, state carried, against the whole"] = _apart(torch.cat(outputs, 1), lstm(x, TokenSequence(length)))
    return {"apart": found}


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def token_times(
    retnet: SequenceModel, gpt: SequenceModel, lstm: LSTM, length: int, dim: int, rounds: int
) -> dict[str, list[float]]:
    """Time one more token after `length` tokens, the models by turns."""
    ids, x = torch.randint(VOCABULARY, (1, length)), torch.randn(1, length, dim)
    calls: dict[str, Callable[[], Any]] = {WHOLE: lambda: gpt(ids)}
    for kind, model in ((RETNET, retnet), (CACHED, gpt)):
        decoding = LanguageDecoding(model, 1, length + rounds + 1)
        decoding.feed(ids)
        calls[kind] = lambda decoding=decoding: decoding.feed(ids[:, :1])
    state = lstm.cells(x)[1]
    calls[RECURRENT] = lambda: lstm.cells(x[:, :1], state)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind in KINDS:
            started = perf_counter()
            calls[kind]()
            if number:  # the first call fills caches
                times[kind].append(perf_counter() - started)
    return times


def state_bytes(kind: str, length: int, dim: int, depth: int) -> int:
    """Return the fp32 bytes that must be kept between two tokens of one text.

    Keys and values: 2 L n C; retention: L h d e with d = C / h and e = 2 C / h; LSTM: 2 L C; no cache: the ids.
    """
    numbers = {
        CACHED: 2 * depth * length * dim,
        RETNET: depth * HEADS * (dim // HEADS) * (2 * dim // HEADS),
        RECURRENT: 2 * depth * dim,
        WHOLE: 2 * length,
    }
    return 4 * numbers[kind]
