"""Published figures of gpt2; the paper's table 2 states 117 M to 1,542 M, which were counted wrongly (its README)."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "gpt2": text(124_439_808, 16_114_089_984, "language", "124 M (openai/gpt-2 README)"),
    "gpt2_medium": text(354_823_168, 46_047_297_536, "language", "355 M (openai/gpt-2 README)"),
    "gpt2_large": text(774_030_080, 100_341_022_720, "language", "774 M (openai/gpt-2 README)"),
    "gpt2_xl": text(1_557_611_200, 201_552_896_000, "language", "1.5 B (openai/gpt-2 README)"),
    "distilgpt2": text(81_912_576, 10_527_277_056, "language", "82 M (Hugging Face)"),
}
