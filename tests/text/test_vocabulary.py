"""Vocabularies: a readable byte-pair loop, transformers, round trips, hostile text."""

import itertools
import json
import pickle

import pytest

from vitrail.errors import DataError, VitrailError
from vitrail.text.learning import learn_vocabulary
from vitrail.text.reading import read_vocabulary
from vitrail.text.vocabulary import Vocabulary

pytest.importorskip("tokenizers")

LINES = ["the cat sat on the mat", "the dog ate the cat's food, didn't it?", "Übergrößen träumen naïve Café 漢字"] * 3
HOSTILE = [
    "",
    " ",
    "\n\n",
    "\x00",
    "a\x00b",
    "\ud800",
    "x\udfffy",
    "العربية עברית",
    "e" + "\u0301" * 10_000,
    "🙂🏽\u200d🚀",
    "\ufeff",
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return learn_vocabulary(LINES, size=330)


@pytest.fixture
def gpt2_files(vocabulary, tmp_path):
    model = json.loads(vocabulary.to_json())["model"]
    (tmp_path / "encoder.json").write_text(json.dumps(model["vocab"]))
    pairs = "\n".join(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n" + pairs + "\n", encoding="utf-8")
    return tmp_path


def by_loop(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Merge the pair that was learnt first, everywhere, until no learnt pair is left."""
    tokens = list(word)
    while True:
        pairs = set(itertools.pairwise(tokens))
        best = next((pair for pair in merges if pair in pairs), None)
        if best is None:
            return tokens
        merged, i = [], 0
        while i < len(tokens):
            pair = tuple(tokens[i : i + 2]) == best
            merged.append("".join(tokens[i : i + 2]) if pair else tokens[i])
            i += 1 + pair
        tokens = merged


def test_byte_pairs_are_merged_as_a_readable_loop_does(vocabulary):
    model = json.loads(vocabulary.to_json())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    assert len(merges) > 40
    for word in ["the", "cat", "catapult", "didn", "zzz", "ateatate"]:
        assert list(vocabulary.encode([word]).ids[0]) == [model["vocab"][token] for token in by_loop(word, merges)]


def test_gpt2_files_read_as_transformers_reads_them(gpt2_files):
    transformers = pytest.importorskip("transformers")
    ours = read_vocabulary(gpt2_files)
    model = json.loads(ours.to_json())["model"]
    theirs = transformers.GPT2Tokenizer(vocab=model["vocab"], merges=[tuple(p) for p in model["merges"]])
    for line in [*LINES, *[text for text in HOSTILE if text.isprintable()]]:
        assert list(ours.encode([line]).ids[0]) == theirs(line)["input_ids"], line


def test_every_text_round_trips(vocabulary):
    texts = [*LINES, *HOSTILE]
    encoded = vocabulary.encode(texts)
    for text, ids, replaced in zip(texts, encoded.ids, encoded.replaced, strict=True):
        back = vocabulary.decode(ids)
        assert back == (
            text if not replaced else text.replace(chr(0xD800), chr(0xFFFD)).replace(chr(0xDFFF), chr(0xFFFD))
        )
    assert encoded.ids[texts.index("")] == () and sum(encoded.replaced) == 2
    assert str(encoded) == "2 characters are not Unicode and were replaced"


def test_a_line_of_a_megabyte(vocabulary):
    line = "the cat sat on the mat " * 45_000
    encoded = vocabulary.encode([line, "a" * 50_000], max_length=100)
    assert [len(ids) for ids in encoded.ids] == [100, 100] and min(encoded.truncated) > 1_000
    assert str(encoded).startswith("2 of 2 texts were truncated, by ")


def test_truncation_is_reported_and_forgotten(vocabulary):
    whole = vocabulary.encode(["the cat sat", "the"])
    assert whole.truncated == (0, 0) and str(whole) == ""
    cut = vocabulary.encode(["the cat sat", "the"], max_length=2)
    assert cut.truncated == (len(whole.ids[0]) - 2, 0) and cut.ids[0] == whole.ids[0][:2]
    assert vocabulary.encode(["the cat sat", "the"]) == whole


def test_a_vocabulary_is_a_value(vocabulary, tmp_path):
    (tmp_path / "tokenizer.json").write_text(vocabulary.to_json(), encoding="utf-8")
    again = read_vocabulary(tmp_path)
    assert again == vocabulary == pickle.loads(pickle.dumps(vocabulary)) and hash(again) == hash(vocabulary)
    assert again.to_json() == vocabulary.to_json() and len(again) == len(vocabulary)
    assert [again.id_of(token) for token in ("<pad>", "<s>", "</s>")] == [0, 1, 2]
    assert learn_vocabulary(LINES, size=330) == vocabulary
    assert (
        learn_vocabulary(["ABC abc"] * 4, 262, lowercase=True).encode(["ABC"]).ids
        == learn_vocabulary(["ABC abc"] * 4, 262, lowercase=True).encode(["abc"]).ids
    )


def test_two_sentences_get_two_segments():
    library = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "b": 5}
    tokenizer = library.Tokenizer(library.models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = library.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    ours = Vocabulary(tokenizer.to_str())
    assert ours.encode(["a b a"]).ids == ((1, 4, 5, 4, 2),)  # neither cut to 3 nor padded to 9
    pair = ours.encode(["a b"], ["b"])
    assert (pair.ids, pair.segments) == (((1, 4, 5, 2, 5, 2),), ((0, 0, 0, 0, 1, 1),))
    assert ours.encode(["a b a b"], max_length=4).ids == ((1, 4, 5, 2),)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "no tokenizer.json"), ("not json", "no tokenizer.json"), ("\x00", "no tokenizer.json")],
)
def test_a_damaged_file_is_refused(content, message, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_vocabulary(tmp_path)


def test_invalid_input_is_refused(vocabulary, gpt2_files, tmp_path_factory):
    with pytest.raises(VitrailError, match="no vocabulary at"):
        read_vocabulary(tmp_path_factory.mktemp("empty"))
    with pytest.raises(VitrailError, match="has no '<mask>'"):
        vocabulary.id_of("<mask>")
    with pytest.raises(VitrailError, match="takes a list of texts"):
        vocabulary.encode("text")
    with pytest.raises(VitrailError, match="at least 259 tokens"):
        learn_vocabulary(LINES, 200)
    for content, message in [("[1]", "no table of tokens"), ("{", "is not JSON"), ('{"a": 0}', "do not fit together")]:
        (gpt2_files / "encoder.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_vocabulary(gpt2_files)
    (gpt2_files / "vocab.bpe").write_text("a b c\n")
    with pytest.raises(DataError, match="no pair of tokens: 'a b c'"):
        read_vocabulary(gpt2_files)
