"""Output of `vitrail explain` for texts: lines for the terminal, and one page with words, tokens and every head."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from vitrail.errors import DataError
from vitrail.explain.blocks import name_of
from vitrail.explain.text_relevance import TextExplanation, explain_text
from vitrail.parts.model import Model
from vitrail.tasks.attention_page import attention_page
from vitrail.tasks.sentiment.word_effects import mark_words
from vitrail.tasks.table import Table
from vitrail.tasks.text_maps import alignment_view
from vitrail.tasks.text_sources import TextLine, checked_text
from vitrail.tasks.translate.alignment import Alignment, align, alignment_page
from vitrail.tasks.translate.options import BeamFlags
from vitrail.tasks.translate.translator import Translator

TABLE_ROWS = 8
"""Words of a text in the table of the terminal, those of the largest effect."""


class ExplainedText(NamedTuple):
    """One text as the terminal shows it.

    Args:
        lines: sentences.
        table: words and numbers, or None.
    """

    lines: list[str]
    table: Table | None


def explain_texts(model: Model, texts: Sequence[TextLine], found: list[TextExplanation]) -> Iterator[ExplainedText]:
    """Explain texts one by one; the values of the page are appended to `found`.

    Raises:
        DataError: a text is empty.
    """
    for line in texts:
        for each in explain_text(model, checked_text(line)):
            found.append(each)
            note = f" (cut by {each.truncated:,} tokens)" if each.truncated else ""
            yield ExplainedText([f"{line.name}{note}: {each.answer}", f"  {mark_words(each.words)}"], _table(each))


def text_page(model: Model, found: Sequence[TextExplanation], command: str = "") -> str:
    """Return the page of some texts; it loads nothing from elsewhere."""
    lead = (
        "Blue speaks for the output, red against it. A word's shade is the change of the log-odds if it is left out; a"
        " token's is its gradient times its vector, or its share of the attention through all layers."
    )
    caption = "Attention of a token (row) to the others (columns), the depth its probability."
    views = {each.text: {**alignment_view(each.tokens, each.tokens, each.maps), "caption": each.text} for each in found}
    body = Markup("\n").join(map(_section, found))
    return attention_page(f"Inside {name_of(model)}", lead, list(views.values()), caption, body, command=command)


def explain_translations(model: Model, texts: Sequence[TextLine], found: list[Alignment]) -> Iterator[ExplainedText]:
    """Translate texts, and name the token of the text that each token of the translation attends to most.

    Raises:
        DataError: a text is empty.
    """
    translator = Translator(model, BeamFlags())
    for line in texts:
        [each] = translator([checked_text(line)])
        alignment = align(translator, line.text, each)
        found.append(alignment)
        yield ExplainedText([f"{line.name}: {each.text}"], _alignment_table(alignment))


def translation_page(model: Model, found: Sequence[Alignment]) -> str:
    """Return the page of some alignments."""
    if not found:
        raise DataError("None of the texts could be read.")
    return alignment_page(found, name_of(model))


def _table(each: TextExplanation) -> Table | None:
    tried = [word for word in each.words if word.effect is not None]
    best = sorted(tried, key=lambda word: -abs(word.effect or 0.0))[:TABLE_ROWS]
    rows = [[word.word, f"{word.effect:+.3f}"] for word in best]
    return Table("", ["word", "effect"], rows, right=["effect"]) if rows else None


def _alignment_table(each: Alignment) -> Table:
    mean = each.maps.mean(dim=(0, 1))
    best = mean.max(dim=-1)
    rows = [
        [token, each.source[place], f"{share:.0%}"]
        for token, share, place in zip(each.target, best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return Table("", ["token", "from", "attention"], rows, right=["attention"])


def _section(each: TextExplanation) -> Markup:
    parts = [_paragraph("Words left out", [(word.word + " ", word.effect) for word in each.words])]
    for title, values in (("Gradient of each token", each.gradient), ("Attention to each token", each.rollout)):
        if values is not None:
            parts.append(_paragraph(title, list(zip(_spaced(each.tokens), values.tolist(), strict=True))))
    note = f" The text was cut by {each.truncated:,} tokens." if each.truncated else ""
    head = Markup('<section><h2>{}</h2><p class="caption">{}{}</p>').format(each.answer, each.text, note)
    return head + Markup("").join(parts) + Markup("</section>")


def _paragraph(title: str, marked: Sequence[tuple[str, float | None]]) -> Markup:
    largest = max([abs(value or 0.0) for _, value in marked], default=0.0) or 1.0
    words = Markup("").join(
        Markup('<mark style="background: rgba({}, {:.2f})" title="{}">{}</mark>').format(
            Markup("60, 120, 210" if (value or 0.0) > 0 else "190, 44, 66"),
            0.7 * abs(value or 0.0) / largest,
            "not tried" if value is None else f"{value:+.4f}",
            word,
        )
        for word, value in marked
    )
    return Markup('<h3>{}</h3><p class="words">{}</p>').format(title, words)


def _spaced(tokens: Sequence[str]) -> list[str]:
    """Return tokens that can be told apart on a line."""
    return [token if token.startswith(" ") or len(token) == 1 else f" {token}" for token in tokens]
