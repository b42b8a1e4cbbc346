"""The `vitrail` command: dispatch to verbs, error messages and exit codes.

A verb is a file of this folder with a frozen dataclass of the same name: its fields are the flags, its docstrings the
help, `run` executes it. Only the file of the given verb is imported, and none imports torch before `run`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from traceback import print_exception

import vitrail
from vitrail.errors import VitrailError, unknown

VERBS = {
    "models": "list the models, or show one: parameters, multiply-adds, evaluation protocol",
    "cost": "show what a model costs by module: parameters, multiply-adds, memory",
    "train": "train a model on your images; stop it at any moment and resume",
    "sweep": "search hyperparameters: trials are runs, several processes share a sweep",
    "evaluate": "measure a trained model on a data set and write a report",
    "predict": "predict with a trained model: name the classes of images",
    "translate": "translate texts with a trained model, by beam search; draw the alignment",
    "restore": "restore images: super-resolution, denoising, JPEG artifacts",
    "generate": "go on from a prompt: text as it comes, or the rest of an image",
    "embed": "write one vector per image or text, and show nearest neighbours",
    "probe": "measure features of frozen models: linear probe and k-NN, models in one table",
    "explain": "show where a model looks: attention maps, rollout, position and patch filters",
    "compress": "remove heads, channels, blocks and ranks from a model, and measure it",
    "trace": "walk one image through a model: formulas, shapes, cost and images of each step",
    "convert": "turn a timm, torchvision or Hugging Face checkpoint into a model folder",
    "export": "write a model for ONNX Runtime, OpenVINO or PyTorch, and verify the file",
    "serve": "serve models over HTTP, with a web page",
    "data": "check a data set before training: bad files, class counts, duplicates",
    "bench": "measure how fast a model runs here, against other libraries and engines",
    "study": "answer a question about architectures by an experiment, with intervals and a page",
    "runs": "list runs with their best metric; diff their configs, compare their curves",
    "doctor": "say what this machine can do, and what would make it do more",
}

_HELP = f"""usage: vitrail VERB [--help] [FLAGS]

The Transformer series under the same few verbs, for every architecture and task.

{{verbs}}

  {"completion":<10} print the completion script for bash, zsh or fish
  {"--version":<10} print the version

Flags may be written --epochs 3, --epochs=3 or epochs=3.

examples:
  vitrail doctor
  vitrail models 'swin*'
  vitrail train data=digits epochs=10
  vitrail predict runs/classify/digits image.png
  vitrail train --help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 (user), 3 (data), 4 (disk, memory), 130 (Ctrl-C).

    Example:
        >>> main(["--version"])
        vitrail 0.1.0
        0
    """
    from vitrail.cli.error_handling import TRACE, explain_failure
    from vitrail.models.custom import VARIABLE

    words, before = list(sys.argv[1:] if argv is None else argv), sys.argv
    sys.argv = ["vitrail", *words]  # verbs record it as their command, also if called from a program
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `vitrail models | head`: the reader has enough, and that is no error to talk about
        _silence_stdout()
        return 141
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        message, code = explain_failure(error)
        if message is None:
            culprit = f" or in a file that {VARIABLE} names" if os.environ.get(VARIABLE) else ""
            error.add_note(
                f"This is a bug in Vitrail{culprit}. Please report it with the lines above and `vitrail doctor --json`."
            )
            raise
        if os.environ.get(TRACE):
            print_exception(error)
        _say(message)
        return code
    finally:
        sys.argv = before


def _dispatch(arguments: list[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb == "help" and rest:
        verb, rest = rest[0], ["--help"]
    built_in: dict[str, Callable[[list[str]], int]] = {
        "--help": _help,
        "-h": _help,
        "help": _help,
        "--version": _version,
        "completion": _completion,
    }
    if verb in built_in:
        return built_in[verb](rest)
    if verb not in VERBS:
        raise unknown("verb", verb, [*VERBS, *built_in], hint="`vitrail --help` says what each one does.")

    from vitrail.cli.arguments import asks_for_help, parse, show_help

    cls = verb_class(verb, rest)
    if asks_for_help(rest):
        return show_help(verb, cls, verb_examples(verb))
    return parse(verb, cls, rest).run()


def verb_class(verb: str, words: Sequence[str] = ()) -> type:
    """Import the file of `verb` and return the dataclass whose fields are its flags.

    Args:
        verb: the verb.
        words: the words that follow it; the flags of some verbs depend on the task that they are about.

    Example:
        >>> verb_class("export").__name__
        'Export'
    """
    module = import_module(f"vitrail.cli.{verb}")
    return module.bind(words) if hasattr(module, "bind") else getattr(module, verb.capitalize())


def verb_examples(verb: str) -> str:
    """Return the example command lines at the end of the help of `verb`.

    Example:
        >>> verb_examples("export").count("vitrail export") > 1
        True
    """
    return import_module(f"vitrail.cli.{verb}").EXAMPLES


def _help(rest: list[str]) -> int:
    print(_HELP.format(verbs="\n".join(f"  {verb:<10} {line}" for verb, line in VERBS.items())))
    return 0


def _version(rest: list[str]) -> int:
    print(f"vitrail {vitrail.__version__}")
    return 0


def _completion(rest: list[str]) -> int:
    from vitrail.cli.completion import SHELLS, script

    if len(rest) != 1:
        raise VitrailError(f"`vitrail completion` needs one shell: {', '.join(SHELLS)}.")
    print(script(rest[0]))
    return 0


def _say(message: str) -> None:
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\033[1;31merror:\033[0m {message}" if coloured else f"error: {message}", file=sys.stderr)


def _silence_stdout() -> None:
    # Python flushes stdout once more at exit; redirect it so that this cannot fail.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
