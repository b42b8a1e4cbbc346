"""Errata of Reformer."""

from vitrail.models.errata.erratum import Erratum

_TESTS = "tests/models/test_reformer.py::"

ERRATA = (
    Erratum(
        "reformer",
        "Keys outside the bucket of the query",
        (
            "paper, equation 4: a token sees those of its own bucket",
            "trax and Hugging Face: it sees all of its own and the previous chunk after sorting",
        ),
        "trax; `LSHAttention`, the bidirectional part, follows equation 4",
        _TESTS + "test_lsh_attention_equals_the_loop",
    ),
    Erratum(
        "reformer",
        "Scale of the scores",
        (
            "paper, equation 2: q k / sqrt(d), with k of length 1",
            "trax and Hugging Face: keys of length sqrt(d), so the scores are q k with k of length 1",
        ),
        "trax; `LSHAttention` follows the paper",
        _TESTS + "test_lsh_attention_equals_the_loop",
    ),
    Erratum(
        "reformer",
        "Chunk before the first chunk of a round",
        (
            "paper: none",
            "trax and Hugging Face: the last chunk of the round before, as the rounds form one ring",
        ),
        "trax",
        _TESTS + "test_lsh_attention_equals_the_loop",
    ),
    Erratum(
        "reformer",
        "Padding of a batch",
        (
            "Hugging Face: the ring goes through the padding, so a text has other results in another batch",
            "here: the ring of each text ends with its own last chunk",
        ),
        "results do not depend on the batch; those of a text alone are Hugging Face's",
        _TESTS + "test_padding_changes_no_result_of_hashed_text",
    ),
    Erratum(
        "reformer",
        "Random rotations",
        (
            "trax and Hugging Face: new ones in each forward pass, unless `hash_seed` is set",
            "here: drawn once from `hash_seed`",
        ),
        "the same text has the same result; those of Hugging Face with the same seed",
        "tests/weights/test_weights_text.py::test_reformer",
    ),
    Erratum(
        "reformer",
        "Dropout of hashed attention",
        (
            "google/reformer-enwik8: `lsh_attention_probs_dropout_prob` is 0.1; crime-and-punishment: 0",
            "here: none; local attention and residuals have that of the configs, 0.2 and 0.05",
        ),
        "none: training of enwik8's sizes differs by it, results of a trained model do not",
        "tests/weights/test_weights_text.py::test_reformer",
    ),
    Erratum(
        "reformer",
        "Weights of a token that sees itself alone",
        (
            "Hugging Face: exp(score - logsumexp) of scores of -1e5, which fp32 rounds to 1/128: weights are off by"
            " up to 0.8 %",
            "here: softmax, whose weights add up to one",
        ),
        "softmax; Hugging Face's in fp64 agree to 1e-5",
        "tests/weights/test_weights_text.py::test_reformer",
    ),
    Erratum(
        "reformer",
        "Bias of the head",
        (
            "trax, and transformers to 4.x: scores of words have a bias, which the released weights hold",
            "transformers 5.23: `lm_head.bias` is loaded and not added",
        ),
        "added",
        "tests/weights/test_weights_text.py::test_reformer",
    ),
)
