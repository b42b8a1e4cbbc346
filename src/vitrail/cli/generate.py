"""`vitrail generate`: go on from a prompt, printed as it comes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vitrail.cli.task_flags import join_options, task_of_generator
from vitrail.tasks import find_options

EXAMPLES = """
vitrail generate runs/language/shakespeare-text_decoder_tiny "ROMEO:"
vitrail generate MODEL "Once upon a time" --tokens 500 --temperature 0.7 --top-p 0.9 --seed 3
vitrail generate gpt2 "The castle" --weights gpt2_folder/    # a folder from Hugging Face, with its vocabulary
vitrail generate MODEL "To be" --temperature 0               # always the most probable token
vitrail generate MODEL "To be" --decode int8                 # weights of eight bits, on a CPU
vitrail generate pixel_gpt_xxs digit.png --weights igpt_xxs_mnist_gen_state_dict.pt --samples 8   # its lower half
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb for the task of the model among the words."""
    return join_options(GenerateVerb, find_options(task_of_generator(words)).GenerateOptions)


@dataclass(frozen=True)
class GenerateVerb:
    """Go on from a prompt: a text, or the upper part of an image.

    Text is printed as it comes. Ctrl-C ends it at once and leaves the text so far (exit code 130). The same seed gives
    the same result.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    prompt: Positional[str] = ""
    """Text to go on from, or an image file; - reads standard input."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    out: Path | None = None
    """File to write to; an image model needs one, default completed.png."""

    def run(self) -> int:
        """Generate, print or write, and return the exit code."""
        from vitrail.atomic_io import check_writable
        from vitrail.data.text_lines import decode
        from vitrail.inference.model_loading import find_model
        from vitrail.tasks import find_task

        task: Any = find_task(task_of_generator([self.model]))
        if self.out is not None:
            check_writable(self.out)
        prompt = decode(sys.stdin.buffer.read(), "standard input") if self.prompt == "-" else self.prompt
        model = find_model(self.model, self.weights, self.device)
        generation = task.generator(model, self, prompt, lambda line: print(line, file=sys.stderr))
        return self._image(generation) if hasattr(generation, "save") else self._text(prompt, generation)

    def _text(self, prompt: str, pieces: Any) -> int:
        from vitrail.text.vocabulary import clean

        text, code = [clean(prompt)[0]], 0
        try:
            print(text[0], end="", flush=True)
            for piece in pieces:
                text.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            code = 130
        print(flush=True)
        self._write("".join(text).encode("utf-8", "replace"))
        return code

    def _write(self, data: bytes) -> None:
        from vitrail.atomic_io import write_file

        if self.out is not None:
            write_file(self.out, data)
            print(f"text {self.out}", file=sys.stderr)

    def _image(self, generation: Any) -> int:
        path = generation.save(self.out or Path("completed.png"))
        print(f"image {path}")
        return 0
