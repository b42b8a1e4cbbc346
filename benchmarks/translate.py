"""Translation with a beam against CTranslate2: 32 sentences, beam 5, the same weights.

    python benchmarks/translate.py                       # Marian's form of the base Transformer, 58,101 words
    python benchmarks/translate.py --tiny                # width 128, 4 + 4 layers, 10,000 words
    python benchmarks/translate.py --parts               # where our time goes
    python benchmarks/translate.py --run RUN --data data/multi30k --sentences 256    # a trained model, with its BLEU

Without --run, weights are random (seed 0): Hugging Face's Marian model is written from ours, and CTranslate2 converts
that. Random weights find no end, so every search takes the same number of steps, `--tokens`; a time has encoding and
search of all sentences. Ratios are taken within each round; the table has their median. A run must be of Marian's form
(`--set form=marian norm=post`), since CTranslate2 converts it; `first` ends a search as CTranslate2 does, with as many
finished texts as the beam, `proved` only when no better one is left. Needs the extras `peers` and `translate`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import vitrail
from sheet import in_rounds, ratio
from vitrail.generation.beam import BeamOptions, beam_search
from vitrail.generation.decoding import translation_decoding
from vitrail.models import create_model
from vitrail.tasks import find_task
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.tasks.translate.batch import most_new
from vitrail.tasks.translate.decoding import END, START
from vitrail.weights.formats import write_as

BEAM = 5
TINY: dict[str, Any] = {"dim": 128, "depth": 4, "num_heads": 4, "hidden": 256, "vocab_size": 10000}
Run = Callable[[], list[list[int]]]


def plain_model(tiny: bool) -> Any:
    """Return the model with random weights; its last word is Marian's start token, never chosen."""
    torch.manual_seed(0)
    smaller: dict[str, Any] = TINY if tiny else {}
    model: Any = create_model("opus_mt_en_de", **smaller).eval()
    with torch.no_grad():
        model.embedding.words.weight[-1] = 0.0
        model.head.bias[-1] = -1e4
    return model


@dataclass(frozen=True)
class Task:
    """Sentences to translate, and the model.

    Args:
        model: plain model.
        sources: token ids, the end token included.
        start: id of the start token.
        end: id of the end token.
        tokens: most new tokens.
        least: least new tokens of CTranslate2; random weights find no end anyway.
        bleu: from translations to a figure, if there are references.
    """

    model: Any
    sources: list[list[int]]
    start: int
    end: int
    tokens: int
    least: int = 1
    bleu: Callable[[list[list[int]]], str] | None = None


def random_task(options: argparse.Namespace) -> Task:
    """Return random sentences of 9 to 25 tokens."""
    model, draw = plain_model(options.tiny), torch.Generator().manual_seed(1)
    last = model.config.vocab_size - 1
    lengths = torch.randint(8, 25, (options.sentences,), generator=draw).tolist()
    sources = [[*torch.randint(1, last, (n,), generator=draw).tolist(), 0] for n in lengths]
    return Task(model, sources, start=last, end=0, tokens=options.tokens, least=options.tokens)


def trained_task(options: argparse.Namespace) -> Task:
    """Return the first sentences of the test set, for a trained run."""
    import sacrebleu

    model: Any = vitrail.load_model(options.run / "weights" / "best")
    splits: Any = find_task("translate").open_split(str(options.data), "test")
    text = next(iter(splits.data.tests.values())) if splits.data.tests else dict(splits.data)["test"]
    pairs = text.pairs(model.metadata["source"], model.metadata["target"])
    vocabulary, count = need_vocabulary(model), options.sentences
    start, end = vocabulary.id_of(START), vocabulary.id_of(END)
    sources = [[*ids, end] for ids in vocabulary.encode(pairs.sources[:count], special=False).ids]
    references = [[line.lower() for line in pairs.targets[:count]]]

    def bleu(texts: list[list[int]]) -> str:
        found = [vocabulary.decode(each).lower() for each in texts]
        return f"{sacrebleu.corpus_bleu(found, references).score:.2f}"

    return Task(model.eval(), sources, start, end, most_new(max(map(len, sources))), bleu=bleu)


def converted(model: Any, folder: Path, start: int, end: int) -> Path:
    """Write the model for CTranslate2, and return its folder.

    Args:
        model: of Marian's form.
        folder: to write to.
        start: id of the start token.
        end: id of the end token.
    """
    import transformers
    from ctranslate2.converters.transformers import BartLoader

    c = model.config
    config = transformers.MarianConfig(
        vocab_size=c.vocab_size, d_model=c.dim, encoder_layers=c.depth, decoder_layers=c.depth,
        encoder_attention_heads=c.num_heads, decoder_attention_heads=c.num_heads, encoder_ffn_dim=c.hidden,
        decoder_ffn_dim=c.hidden, activation_function="swish", scale_embedding=True, pad_token_id=start,
        decoder_start_token_id=start, eos_token_id=end, forced_eos_token_id=end,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).eval()
    theirs.load_state_dict(write_as("huggingface", "transformer", model.state_dict(), c), strict=False)
    theirs.tie_weights()
    # Marian's own loader would drop the start token, and start from zeros.
    theirs.config.normalize_before = theirs.config.normalize_embedding = False
    spec: Any = BartLoader().get_model_spec(theirs)
    words = [f"token{i}" for i in range(c.vocab_size)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.eos_token, spec.config.decoder_start_token = words[end], words[start]
    spec.config.bos_token, spec.config.unk_token = words[start], words[start]
    spec.config.add_source_bos = spec.config.add_source_eos = False
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    return folder


def peer(folder: Path, task: "Task", threads: int, kind: str) -> Run:
    """Return CTranslate2's call."""
    import ctranslate2

    translator = ctranslate2.Translator(str(folder), compute_type=kind, inter_threads=1, intra_threads=threads)
    words = [[f"token{i}" for i in source] for source in task.sources]

    def run() -> list[list[int]]:
        found = translator.translate_batch(
            words, beam_size=BEAM, max_decoding_length=task.tokens, min_decoding_length=task.least, max_input_length=0
        )
        return [[int(word[5:]) for word in one.hypotheses[0]] for one in found]

    return run


def ours(model: Any, task: "Task", first: bool = False) -> Run:
    """Return our call."""
    options = BeamOptions(BEAM, task.tokens, (task.end,), first=first)

    def run() -> list[list[int]]:
        with torch.inference_mode():
            decoding = translation_decoding(model, task.sources, task.tokens + 1)
            found = beam_search(decoding, [[task.start]] * len(task.sources), options)
        return [[token for token in one.hypotheses[0].tokens if token != task.end] for one in found]

    return run


def race(options: argparse.Namespace) -> None:
    """Print sentences a second, ratios, and BLEU if there are references."""
    task = trained_task(options) if options.run else random_task(options)
    with TemporaryDirectory() as folder:
        target = converted(task.model, Path(folder), task.start, task.end)
        runs = {f"CTranslate2 {kind}": peer(target, task, options.threads, kind) for kind in ("float32", "int8")}
    for kind in ("fp32", "bf16", "int8"):
        fast = vitrail.optimize(task.model, kind)  # pyright: ignore[reportArgumentType]
        runs[f"ours {kind}, proved"] = ours(fast, task)
        if options.run:
            runs[f"ours {kind}, first"] = ours(fast, task, first=True)
    if options.plain:
        runs["ours, PyTorch"] = ours(task.model, task)
    times, texts = in_rounds(runs, options.rounds)
    first, count, lengths = next(iter(runs)), len(task.sources), [len(each) for each in task.sources]
    print(f"{count} sentences of {min(lengths)} to {max(lengths)} tokens, at most {task.tokens} new, beam {BEAM}")
    rows = []
    for name in runs:
        same = sum(a == b for a, b in zip(texts[name], texts[first], strict=True))
        bleu = task.bleu(texts[name]) if task.bleu else ""
        speed = f"{count / median(times[name]):.1f}"
        rows.append([name, speed, ratio(times[name], times[first]), f"{same} of {count}", bleu])
    columns = ["decoder", "sentences/s", "x CTranslate2 float32", "translations of the first", "BLEU"]
    print(Table("", columns, rows, columns[1:]).markdown())


def parts(options: argparse.Namespace) -> None:
    """Print where the time of our search goes."""
    from cProfile import Profile
    from pstats import Stats

    task = random_task(options)
    run = ours(vitrail.optimize(task.model, "fp32"), task)
    run()
    with Profile() as profile:
        run()
    Stats(profile).sort_stats("tottime").print_stats(12)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--plain", action="store_true", help="also the model in PyTorch")
    parser.add_argument("--run", type=Path, help="run folder of a trained model")
    parser.add_argument("--data", type=Path, help="its data")
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts(options) if options.parts else race(options)


if __name__ == "__main__":
    main()
