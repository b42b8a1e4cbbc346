"""Decoding of GPT-2 against Hugging Face and CTranslate2, the bandwidth used, and the cost of a token by its context.

    python benchmarks/decode.py --prepare work/                # writes the peers' models, once
    python benchmarks/decode.py work/                          # 128 new tokens, greedy, batch 1, in turns
    python benchmarks/decode.py work/ --context                # one token after 64 to 1,024
    python benchmarks/decode.py work/ --model gpt2_medium --tokens 64 --rounds 3

Weights are random (seed 0), the same for all: those of Hugging Face are written from ours, and CTranslate2 converts
these. A time is that of a whole call of `generate` with its prompt, the end token excluded. Ratios are taken within
each round; the table has their median. "of the bandwidth" is bytes of packed weights a second, over the bandwidth at
which all threads read a buffer larger than any cache. Needs the extra `peers`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

import vitrail
from sheet import in_rounds, ratio
from vitrail.generation.generate import generate
from vitrail.models import create_model
from vitrail.native.build import library
from vitrail.native.decode import DecoderRows
from vitrail.native.ffi import start_of
from vitrail.tasks.table import Table
from vitrail.weights.formats import write_as

PRECISIONS = ("fp32", "bf16", "int8", "codebook")
CONTEXTS = (64, 128, 256, 512, 1024)
Run = Callable[[], list[int]]


def plain_model(name: str) -> Any:
    """Return the model with random weights."""
    torch.manual_seed(0)
    return create_model(name).eval()


def transformers_model(name: str) -> Any:
    """Return Hugging Face's GPT-2 with the weights of ours."""
    import transformers

    model = plain_model(name)
    c = model.config
    config = transformers.GPT2Config(
        n_embd=c.dim, n_layer=c.depth, n_head=c.num_heads, vocab_size=c.vocab_size, n_positions=c.max_length
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.load_state_dict(write_as("huggingface", "gpt2", model.state_dict(), c), strict=False)
    theirs.tie_weights()
    return theirs


def prepare(name: str, folder: Path) -> None:
    """Convert the model for CTranslate2, and pack ours in each precision."""
    from ctranslate2.converters.transformers import GPT2Loader

    theirs = transformers_model(name)
    for kind in ("float32", "int8"):
        spec = GPT2Loader().get_model_spec(theirs)
        spec.register_vocabulary([f"token{i}" for i in range(theirs.config.vocab_size)])
        for field in ("bos_token", "eos_token", "unk_token"):
            setattr(spec.config, field, f"token{theirs.config.vocab_size - 1}")
        spec.validate()
        spec.optimize(quantization=None if kind == "float32" else kind)
        target = folder / f"{name}-{kind}"
        target.mkdir(parents=True, exist_ok=True)
        spec.save(str(target))
    started = perf_counter()
    torch.save(vitrail.optimize(plain_model(name), "codebook"), folder / f"{name}-codebook.pt")
    print(f"16 values for each 64 outputs of all matrices: {perf_counter() - started:.1f} s")


def ours(name: str, precision: str, folder: Path) -> Any:
    """Return our optimized model."""
    if precision == "codebook":
        return torch.load(folder / f"{name}-codebook.pt", weights_only=False)
    return vitrail.optimize(plain_model(name), precision)  # pyright: ignore[reportArgumentType]


def peers(name: str, folder: Path, prompt: list[int], tokens: int, threads: int) -> dict[str, Run]:
    """Return the peers' calls by their names."""
    import ctranslate2

    theirs = transformers_model(name)
    ids = torch.tensor([prompt])

    def hugging_face() -> list[int]:
        with torch.no_grad():
            done = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
        return done[0, len(prompt) :].tolist()

    def converted(kind: str) -> Run:
        generator = ctranslate2.Generator(
            str(folder / f"{name}-{kind}"), compute_type=kind, inter_threads=1, intra_threads=threads
        )
        words = [[f"token{i}" for i in prompt]]

        def run() -> list[int]:
            result = generator.generate_batch(
                words,
                beam_size=1,
                sampling_topk=1,
                max_length=tokens,
                min_length=tokens,
                include_prompt_in_result=False,
            )
            return result[0].sequences_ids[0]

        return run

    return {
        "Hugging Face generate, fp32": hugging_face,
        "CTranslate2 fp32": converted("float32"),
        "CTranslate2 int8": converted("int8"),
    }


def bandwidth(threads: int) -> float:
    """Return the bytes a second at which all threads read a buffer of 512 MB: the best of five."""
    words = torch.ones(64 << 20, dtype=torch.int64)
    times = []
    for _ in range(6):
        started = perf_counter()
        library("decode").vitrail_decode_read(start_of(words), words.numel(), threads)
        times.append(perf_counter() - started)
    return words.numel() * 8 / min(times)


def race(options: argparse.Namespace) -> None:
    """Print tokens a second, ratios and bandwidth of ours and of the peers."""
    prompt = torch.randint(0, 50000, (32,), generator=torch.Generator().manual_seed(1)).tolist()
    models = {kind: ours(options.model, kind, options.folder) for kind in PRECISIONS}
    runs = peers(options.model, options.folder, prompt, options.tokens, options.threads)
    runs |= {
        f"ours {kind}": lambda kind=kind: generate(models[kind], [prompt], options.tokens)[0] for kind in PRECISIONS
    }
    top = bandwidth(options.threads)
    times, texts = in_rounds(runs, options.rounds)
    first, rows = "Hugging Face generate, fp32", []
    for name in runs:
        packed = models[name.removeprefix("ours ")].program.bytes if name.startswith("ours") else 0
        speed = options.tokens / median(times[name])
        ratios = [ratio(times[name], times[other]) for other in list(runs)[:3]]
        same = sum(a == b for a, b in zip(texts[name], texts[first], strict=True))
        used = f"{packed * speed / top:.0%}" if packed else ""
        rows.append([name, f"{speed:.1f}", *ratios, f"{same} of {options.tokens}", used])
    print(
        f"{options.model}, {len(prompt)} + {options.tokens} tokens, {options.threads} threads, {options.rounds} rounds;"
    )
    print(f"all threads read {top / 1e9:.1f} GB/s")
    columns = ["decoder", "tokens/s", "x HF", "x CT2 fp32", "x CT2 int8", "tokens of HF", "of the bandwidth"]
    print(Table("", columns, rows, columns[1:]).markdown())


def context(options: argparse.Namespace) -> None:
    """Print the time of one token after each number of tokens, and the exponent of its growth."""
    rows = []
    for kind in PRECISIONS:
        model = ours(options.model, kind, options.folder)
        times = []
        for length in CONTEXTS:
            state = DecoderRows(model.program, 1, length + 24)
            state.feed(torch.randint(0, 50000, (1, length - 8), generator=torch.Generator().manual_seed(1)))
            found = []
            for _ in range(20):
                started = perf_counter()
                state.feed(torch.tensor([[7]]))
                found.append(perf_counter() - started)
            times.append(median(found[4:]))
        slope = float(np.polyfit(np.log(CONTEXTS), np.log(times), 1)[0])
        rows.append([kind, *(f"{1e3 * each:.2f}" for each in times), f"{slope:.2f}"])
    print(f"{options.model}: milliseconds of the next token after N tokens, {options.threads} threads")
    columns = ["weights", *map(str, CONTEXTS), "exponent"]
    print(Table("", columns, rows, columns[1:]).markdown())


def main() -> None:
    """Prepare, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the prepared models")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--context", action="store_true")
    parser.add_argument("--model", default="gpt2")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.prepare:
        prepare(options.model, options.folder)
    elif options.context:
        context(options)
    else:
        race(options)


if __name__ == "__main__":
    main()
