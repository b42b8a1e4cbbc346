"""Convert tyro's boxed error messages to one or two sentences."""

import re
from ast import literal_eval
from collections.abc import Callable
from itertools import dropwhile, takewhile

from vitrail.errors import unknown


def plainer(box: str) -> str:
    """Extract the message from the box, up to its first rule, and reword it.

    Example:
        >>> plainer("╭─ Value error ─╮\\n│ Error parsing --lr: could not convert string to float: 'x' │\\n│ ──── │")
        "--lr takes a number; got 'x'."
    """
    lines = [line.strip("│").rstrip() for line in box.splitlines()[1:]]
    below_title = dropwhile(_is_rule, lines)  # a terminal without Unicode has a rule there too
    lines = list(takewhile(lambda line: not _is_rule(line), below_title))
    if lines and lines[0].strip().startswith("Missing from"):
        return _missing(lines)
    text = " ".join(line.strip() for line in lines)[:400]
    for pattern, rewrite in _REWRITES:
        found = re.fullmatch(pattern, text)
        if found:
            return rewrite(*found.groups())
    return text


def _is_rule(line: str) -> bool:
    return not line.strip(" ─╰╯-")


def _missing(lines: list[str]) -> str:
    """List the missing arguments with their help: tyro indents names by four, and their help by eight."""
    named: list[str] = []
    for line in lines[1:]:
        if _indent(line) - _indent(lines[0]) <= 4:
            named.append(line.strip() + ":")
        elif named:
            named[-1] += " " + line.strip()
    shown = [line.replace(" (required)", "") for line in named[:4]]
    return "\n  ".join(["Missing:", *shown])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _choice(got: str, what: str, choices: str) -> str:
    return str(unknown(what, got, [str(choice) for choice in literal_eval(f"({choices},)")]))


def _kind(flag: str, kinds: str, got: str) -> str:
    words = {"INT": "a whole number", "FLOAT": "a number", "{None}": "nothing", "PATH": "a path", "STR": "a word"}
    known = [words.get(kind, kind.strip("{}")) for kind in kinds.split("|")]
    return f"{flag} takes {' or '.join(known)}; got '{got}'."


_REWRITES: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*?),?\)\.", _choice),
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", "{} takes a whole number; got {}.".format),
    (r"Error parsing (\S+): could not convert string to float: (.*)", "{} takes a number; got {}.".format),
    (r"Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*)'\]\.", _kind),
    (r"Error parsing [A-Z]\w*: (.*)", "{}".format),  # a dataclass that judges its own fields has said all
    (r"Unrecognized options: (.*)", "Nothing is done with: {}.".format),
    (r"Missing value for argument '(.*)'\. Expected (\d+) values?\.", "{} needs a value after it.".format),
)
