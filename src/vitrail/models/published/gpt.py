"""Published figures of GPT; section 4.1 of the paper states sizes of layers, its users 117 M."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "openai_gpt": text(116_534_784, 15_152_775_168, "language", "117 M (openai/gpt-2 README, of the first model)")
}
