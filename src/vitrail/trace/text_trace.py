"""Trace of a text model: merges, ids, the pass with its attention, next tokens by layer, beam search."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import name_of
from vitrail.generation.beam import BeamCandidate, BeamOptions, beam_search
from vitrail.generation.decoding import TranslationDecoding
from vitrail.layouts import TokenSequence
from vitrail.parts.backbone import Features
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.encoder_decoder import EncoderDecoder
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.parts.sequence_model import SequenceModel, TiedModel
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.tasks.translate.batch import most_new
from vitrail.tasks.translate.decoding import END, START
from vitrail.trace import mixers, views
from vitrail.trace.arrays import pack
from vitrail.trace.beam_tree import beam_tree
from vitrail.trace.counts import Counts
from vitrail.trace.frame import ModelTrace, TraceFrame
from vitrail.trace.layers import layer_formula
from vitrail.trace.lens import block_calls
from vitrail.trace.merges import replay
from vitrail.trace.output import known_names
from vitrail.trace.record import Call, record, tensors
from vitrail.trace.twins import twins
from vitrail.trace.views import View
from vitrail.trace.walk import Describer, Walk, group_of, millions

BEAM = 4
"""Unfinished translations of the beam search that is drawn."""
MOST_TOKENS = 64
"""Tokens of a text, so that every attention matrix fits on a page."""


class TextWalk(Walk):
    """A walk over a model of sequences.

    Args:
        source: texts of the tokens.
        target: those of a translation, the start token first; empty for other models.
        root, counts, describers: as in `Walk`.
    """

    def __init__(
        self,
        source: Sequence[str],
        target: Sequence[str],
        root: Call,
        counts: Counts,
        describers: dict[type, Describer],
    ):
        super().__init__(root, (1, 1), counts, describers)
        self.source, self.target = list(source), list(target)

    def frames(self, call: Call) -> Iterator[TraceFrame]:
        """Describe by seat, then by layer."""
        seat = call.path.split(".")[-1]
        if seat in ("token_mixer", "cross_mixer"):
            yield from mixers.mixer(self, call)
        elif seat == "channel_mixer":
            yield from mixers.mlp(self, call)
        elif hasattr(call.module, "token_mixer") and hasattr(call.module, "channel_mixer"):
            yield from mixers.block(self, call)
        elif call.path.endswith("embedding") or call.path == "head":
            yield self._layers(call)
        else:
            yield from super().frames(call)

    def _layers(self, call: Call) -> TraceFrame:
        lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
        title = "Word embedding and position" if call.path.endswith("embedding") else "Head"
        return self.frame(call, title, lines, views=self.heat(call, "length of each vector"))

    def heat(self, call: Call, label: str) -> list[View]:
        """Return the length of the vector of each token."""
        y = call.y
        names = None if y is None else self._names(call, y.shape[-2] if y.ndim == 3 else 0)
        return [] if y is None or names is None else [views.strip(names, y[0].norm(dim=-1), label)]

    def name_tokens(self, call: Call, view: View) -> View:
        """Add the texts of queries and keys to a matrix of attention."""
        n, m = view["values"]["shape"][-2:]
        rows = self._names(call, n)
        columns = self.source if call.path.split(".")[-1] == "cross_mixer" else rows
        fits = rows is not None and len(columns or ()) == m
        return view | ({"row_names": rows, "column_names": columns} if fits else {})

    def _names(self, call: Call, count: int) -> list[str] | None:
        decoding = call.path.startswith("decoder") or (call.path == "embedding" and count != len(self.source))
        names = self.target if decoding else self.source
        return names if len(names) == count else None


def trace_text(model: Model, text: str, command: str = "") -> ModelTrace:
    """Walk one text through a model of sequences.

    Of a translation model the beam search is made first; the pass is that of the source with the best translation.

    Args:
        model: a text model with its vocabulary.
        text: the text.
        command: command line that makes the page again.

    Raises:
        VitrailError: the model has no vocabulary, or the text has no token or too many.
    """
    check_layers(model, "a trace shows its layers")
    if not isinstance(model, SequenceModel | EncoderDecoder):
        raise VitrailError(f"{name_of(model)} is no model of texts.")
    vocabulary = need_vocabulary(model)
    translating = isinstance(model, EncoderDecoder)
    encoded = vocabulary.encode([text], special=not translating)
    ids = [*encoded.ids[0], *([vocabulary.id_of(END)] if translating else [])]
    if not 0 < len(ids) <= MOST_TOKENS:
        raise VitrailError(f"The text has {len(ids)} tokens; a trace takes 1 to {MOST_TOKENS}. Give another text.")

    def show(token: int) -> str:
        return vocabulary.decode([token], special=True) or "·"

    frames = _text_frames(vocabulary, text, ids, show)
    target: list[int] = []
    if isinstance(model, EncoderDecoder):
        search, target = _search(model, ids, show)
        frames.append(search)
    with inference_mode_for(model) as device:
        inputs = [torch.tensor([each], device=device) for each in (ids, target) if each]
        root = record(model, *inputs)
        counts = Counts(model, root)
        walk = TextWalk([show(i) for i in ids], [show(i) for i in target], root, counts, {MLP: mixers.mlp})
        frames += list(walk.frames(root))
        lens = {} if translating else text_lens(model, root, show)
    return ModelTrace(
        model=name_of(model),
        facts=_facts(counts, ids, target, show, lens),
        frames=frames,
        lens=lens,
        twins=twins(root),
        notes=[f"Multiply-adds are not counted: {counts.reason}"] if counts.reason else [],
        command=command,
        calls=root,
    )


def _text_frames(vocabulary: Any, text: str, ids: Sequence[int], show: Any) -> list[TraceFrame]:
    words = replay(vocabulary, text)
    count = sum(len(steps[0].tokens) for steps in words)
    found = []
    if words:
        steps = [[[list(step.tokens), step.pair, step.rank] for step in word] for word in words]
        formulas = [
            f"{len(words)} words, {count} characters of the alphabet → {sum(len(w[-1].tokens) for w in words)} tokens",
            "of all neighbours that the table has, the pair that was learned first is merged",
        ]
        view: View = {
            "kind": "merges",
            "label": "each word alone; the next pair is marked",
            "words": steps,
        }
        found.append(TraceFrame("Byte pairs are merged", "text", "", formulas, views=[view]))
    labels = [f"{show(token)} {token}" for token in ids]
    strip = views.strip(labels, torch.zeros(len(ids)), "tokens with their ids")
    formulas = [f"N = {len(ids)} tokens of a vocabulary of {len(vocabulary):,}"]
    return [*found, TraceFrame("Tokens", "text", "", formulas, shape_out=[1, len(ids)], views=[strip])]


def _search(model: EncoderDecoder, ids: Sequence[int], show: Any) -> tuple[TraceFrame, list[int]]:
    """Return the frame of the beam search, and the input of the decoder: the start token and the best translation."""
    vocabulary = need_vocabulary(model)
    start, end = (vocabulary.id_of(token) for token in (START, END))
    options = BeamOptions(BEAM, most_new(len(ids)), stop=(end,))
    steps: list[list[BeamCandidate]] = []
    with inference_mode_for(model):
        decoding = TranslationDecoding(model, [ids], options.max_new + 1)
        [result] = beam_search(decoding, [[start]], options, steps)
    best = result.hypotheses[0]
    formulas = [
        f"score = log p / n^{getattr(options.penalty, 'alpha', 1.0):g}; best: {best.log_prob:.4f} → {best.score:.4f}",
        f"{len(steps)} steps of {BEAM} texts; " + ("no better one was missed" if result.certified else "not certified"),
        *(f"{each.score:.4f}  {vocabulary.decode(each.tokens)}" for each in result.hypotheses),
    ]
    view = beam_tree(steps, best.tokens, show, show(start))
    frame = TraceFrame(
        "Beam search", "search", "", formulas, "The best continuations of each step are kept.", views=[view]
    )
    tokens = best.tokens[:-1] if best.tokens[-1] == end else best.tokens
    return frame, [start, *tokens]


def text_lens(model: Model, root: Call, show: Callable[[int], str], top: int = 5) -> dict[str, Any]:
    """Return the model's output after each block (logit lens): norm and head, of the last token or of the text.

    Args:
        model: a model of one sequence.
        root: its recorded calls.
        show: text of a token.
        top: number of outputs to follow: the best of the last block.

    Returns:
        The same value as `lens.logit_lens`; the last row is the output.
    """
    layers, scores = [], []
    answer = _last(root.output)
    norm = next((call for call in root.walk() if call.path == "backbone.norm"), None)
    if answer is None or norm is None or norm.x is None or not hasattr(model, "head"):
        return {}
    table = [model.table] if isinstance(model, TiedModel) else []
    for call in block_calls(root):
        x = next((each for each in tensors(call.output) if each.shape == norm.x.shape), None)
        if x is not None:
            layout = TokenSequence(x.shape[1])
            norm_last: Any = model.backbone.norm
            logits = _last(model.head(Features(norm_last(x), layout, ()), *table))
            if logits is not None:
                layers.append(group_of(call.path))
                scores.append(logits)
    if not scores:
        return {}
    names = known_names(model)

    def label(i: int) -> str:
        return show(i) if table else names[i] if i < len(names) else f"class {i}"

    probabilities = torch.stack(scores).softmax(-1)
    best = answer.topk(min(top, len(answer))).indices.tolist()
    return {
        "layers": layers,
        "labels": [label(i) for i in best],
        "values": pack(probabilities[:, best]),
        "logits": pack(torch.stack(scores)[:, best]),
        "own": [[label(int(each.argmax())), round(each.max().item(), 4)] for each in probabilities],
    }


def _last(output: Any) -> Tensor | None:
    """Return the scores of the last token, or of the whole text."""
    first = next(tensors(output), None)
    if first is None or first.ndim not in (2, 3) or first.shape[-1] < 2:
        return None
    return first[0, -1].float() if first.ndim == 3 else first[0].float()


def _facts(
    counts: Counts, ids: Sequence[int], target: Sequence[int], show: Any, lens: dict[str, Any]
) -> list[tuple[str, str, str]]:
    macs = "?" if counts.total_macs is None else millions(counts.total_macs)
    facts = [
        ("Input", f"{len(ids)}", "tokens"),
        ("Parameters", millions(counts.total_parameters), f"{counts.total_parameters:,}"),
        ("Multiply-adds", macs, "this pass"),
    ]
    if target:
        facts.append(("Output", f"{len(target) - 1}", "tokens of the translation"))
    elif lens:
        facts.append(("Answer", lens["own"][-1][0], f"probability {lens['own'][-1][1]:.3f}"))
    return facts


def is_text_model(model: nn.Module) -> bool:
    """Return whether a model reads texts.

    Example:
        >>> is_text_model(nn.Linear(1, 1))
        False
    """
    return isinstance(model, SequenceModel | EncoderDecoder) and hasattr(model, "inputs_type")
