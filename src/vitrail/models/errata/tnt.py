"""Errata of TNT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "tnt",
        "Convolution of words: within a patch, or over the image",
        (
            "paper, section 3.1, and official code: the image is cut into patches first, each is convolved alone",
            "timm's `tnt_s_legacy_patch16_224`: the image is convolved first, so words see pixels of other patches",
        ),
        "the paper; `tnt_s_legacy_patch16_224` as timm, for its weights",
        "tests/parts/test_visual_words.py::test_words_read_their_own_patch_only",
    ),
    Erratum(
        "tnt",
        "Norms of the projection from words to patches",
        (
            "paper, equation 5: a linear layer without norm",
            "official code: LayerNorm over all words of a patch, linear without bias, LayerNorm",
            "timm's legacy model: LayerNorm of each word, linear with bias",
        ),
        "the official code; legacy as timm",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
)
