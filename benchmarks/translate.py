"""Translation with a beam against CTranslate2: 32 sentences, beam 5, the same weights.

    python benchmarks/translate.py                       # Marian's form of the base Transformer, 58,101 words
    python benchmarks/translate.py --tiny                # width 128, 4 + 4 layers, 10,000 words
    python benchmarks/translate.py --parts               # where our time goes

Weights are random (seed 0): Hugging Face's Marian model is written from ours, and CTranslate2 converts that. Random
weights find no end, so every search takes the same number of steps, `--tokens`; a time has encoding and search of all
sentences. Ratios are taken within each round; the table has their median. Needs the extra `peers`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

import vitrail
from vitrail.generation.beam import BeamOptions, beam_search
from vitrail.generation.decoding import translation_decoding
from vitrail.models import create_model
from vitrail.weights.formats import write_as

BEAM = 5
TINY = {"dim": 128, "depth": 4, "num_heads": 4, "hidden": 256, "vocab_size": 10000}
Run = Callable[[], list[list[int]]]


def plain_model(tiny: bool) -> Any:
    """Return the model with random weights; its last word is Marian's start token, never chosen."""
    torch.manual_seed(0)
    model = create_model("opus_mt_en_de", **(TINY if tiny else {})).eval()
    with torch.no_grad():
        model.embedding.words.weight[-1] = 0.0
        model.head.bias[-1] = -1e4
    return model


def converted(model: Any, folder: Path) -> Path:
    """Write the model for CTranslate2, and return its folder."""
    import transformers
    from ctranslate2.converters.transformers import MarianMTLoader

    c, last = model.config, model.config.vocab_size - 1
    config = transformers.MarianConfig(
        vocab_size=c.vocab_size, d_model=c.dim, encoder_layers=c.depth, decoder_layers=c.depth,
        encoder_attention_heads=c.num_heads, decoder_attention_heads=c.num_heads, encoder_ffn_dim=c.hidden,
        decoder_ffn_dim=c.hidden, activation_function="swish", scale_embedding=True, pad_token_id=last,
        decoder_start_token_id=last, eos_token_id=0, forced_eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).eval()
    theirs.load_state_dict(write_as("huggingface", "transformer", model.state_dict(), c), strict=False)
    theirs.tie_weights()
    spec = MarianMTLoader().get_model_spec(theirs)
    words = [f"token{i}" for i in range(last)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    for field in ("eos_token", "unk_token", "decoder_start_token"):
        setattr(spec.config, field, "token0")
    spec.config.add_source_bos = spec.config.add_source_eos = False
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    return folder


def peer(folder: Path, sources: list[list[int]], tokens: int, threads: int, kind: str) -> Run:
    """Return CTranslate2's call."""
    import ctranslate2

    translator = ctranslate2.Translator(str(folder), compute_type=kind, inter_threads=1, intra_threads=threads)
    words = [[f"token{i}" for i in source] for source in sources]

    def run() -> list[list[int]]:
        found = translator.translate_batch(
            words, beam_size=BEAM, max_decoding_length=tokens, min_decoding_length=tokens, max_input_length=0
        )
        return [[int(word[5:]) for word in one.hypotheses[0]] for one in found]

    return run


def ours(model: Any, sources: list[list[int]], tokens: int) -> Run:
    """Return our call."""
    start = model.config.vocab_size - 1
    options = BeamOptions(BEAM, tokens, (0,))

    def run() -> list[list[int]]:
        with torch.inference_mode():
            decoding = translation_decoding(model, sources, tokens + 1)
            found = beam_search(decoding, [[start]] * len(sources), options)
        return [list(one.hypotheses[0].tokens) for one in found]

    return run


def race(options: argparse.Namespace) -> None:
    """Print sentences a second and ratios."""
    model = plain_model(options.tiny)
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(8, 25, (options.sentences,), generator=draw).tolist()
    sources = [torch.randint(1, model.config.vocab_size - 1, (n,), generator=draw).tolist() + [0] for n in lengths]
    with TemporaryDirectory() as folder:
        target = converted(model, Path(folder))
        runs = {
            f"CTranslate2 {kind}": peer(target, sources, options.tokens, options.threads, kind)
            for kind in ("float32", "int8")
        }
    for kind in ("fp32", "bf16", "int8"):
        runs[f"ours {kind}"] = ours(vitrail.optimize(model, kind), sources, options.tokens)  # pyright: ignore
    if options.plain:
        runs["ours, PyTorch"] = ours(model, sources, options.tokens)
    times: dict[str, list[float]] = {name: [] for name in runs}
    texts: dict[str, list[list[int]]] = {}
    for turn in range(options.rounds + 1):
        for name, run in runs.items():
            started = perf_counter()
            texts[name] = run()
            if turn:  # the first turn warms up
                times[name].append(perf_counter() - started)
    first = next(iter(runs))
    print(f"{len(sources)} sentences of {min(lengths)} to {max(lengths)} tokens, {options.tokens} new, beam {BEAM}")
    print("| decoder | sentences/s | x CTranslate2 float32 | translations of the first |\n| --- | ---: | ---: | ---: |")
    for name in runs:
        ratio = median(b / a for a, b in zip(times[name], times[first], strict=True))
        same = sum(a == b for a, b in zip(texts[name], texts[first], strict=True))
        print(f"| {name} | {len(sources) / median(times[name]):.1f} | {ratio:.2f} | {same} of {len(sources)} |")


def parts(options: argparse.Namespace) -> None:
    """Print where the time of our search goes."""
    from cProfile import Profile
    from pstats import Stats

    model = vitrail.optimize(plain_model(options.tiny), "fp32")
    run = ours(model, [[i + 1, i + 2, *range(3, 15), 0] for i in range(options.sentences)], options.tokens)
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
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts(options) if options.parts else race(options)


if __name__ == "__main__":
    main()
