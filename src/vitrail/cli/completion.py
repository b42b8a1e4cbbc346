"""Shell completion: one static script with every verb, flag, choice and model name, so TAB starts no Python.

bash: vitrail completion bash > ~/.local/share/bash-completion/completions/vitrail
zsh:  vitrail completion zsh > ~/.zfunc/_vitrail      (with ~/.zfunc in fpath)
fish: vitrail completion fish > ~/.config/fish/completions/vitrail.fish
"""

from dataclasses import dataclass

from vitrail.cli import VERBS, verb_class
from vitrail.cli.flags import Arity, Flag, flags_of
from vitrail.errors import unknown
from vitrail.models import list_models


@dataclass(frozen=True)
class Words:
    """Completions after a verb.

    Args:
        flags: every spelling of every flag.
        values: the choices of a flag, if it has any.
        plain: positional choices, such as the action of `vitrail data`.
    """

    flags: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    plain: tuple[str, ...]


def script(shell: str) -> str:
    """Return the completion script for a shell.

    Raises:
        VitrailError: if there is none for this shell.
    """
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    return SHELLS[shell]({verb: _words(verb) for verb in VERBS})


def _words(verb: str) -> Words:
    flags = flags_of(verb_class(verb))
    spellings = [spelling for flag in flags for spelling in flag.spellings]
    values = {s: _values(flag) for flag in flags for s in flag.spellings if flag.arity is not Arity.SWITCH}
    plain = [word for flag in flags if flag.positional for word in flag.choices]
    models = list_models() if verb == "models" else []
    return Words((*spellings, "--help"), values, (*plain, *models))


def _values(flag: Flag) -> tuple[str, ...]:
    return flag.choices or (tuple(list_models()) if flag.name == "model" else ())


_BASH = """\
_vitrail() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}}
    if [[ $current == "=" ]]; then
        current="" previous=--${{previous#--}}
    elif [[ $previous == "=" ]]; then
        previous=--${{COMP_WORDS[COMP_CWORD-2]#--}}
    fi
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "{verbs}" -- "$current"))
        return
    fi
    case "$verb $previous" in
{values}
    esac
    case "$verb" in
{plain}
    esac
}}
complete -o bashdefault -o default -F _vitrail vitrail"""


def _bash(table: dict[str, Words]) -> str:
    reply = 'COMPREPLY=($(compgen -W "{}" -- "$current"))'
    values = [
        f'        "{verb} {flag}") {reply.format(" ".join(known))}; return ;;'
        for verb, words in table.items()
        for flag, known in words.values.items()
    ]
    plain = [
        f"        {verb}) if [[ $current == -* ]]; then {reply.format(' '.join(words.flags))}; "
        f"else {reply.format(' '.join(words.plain))}; fi ;;"
        for verb, words in table.items()
    ]
    plain.append(f"        completion) {reply.format(' '.join(SHELLS))} ;;")
    return _BASH.format(verbs=" ".join(_first_words()), values="\n".join(values), plain="\n".join(plain))


_ZSH = """\
#compdef vitrail
_vitrail() {{
    local verb=$words[2] previous=$words[CURRENT-1] current=$words[CURRENT]
    if [[ $current == [a-z]*=* || $current == --*=* ]]; then
        previous=--${{${{current#--}}%%=*}}
        compset -P '*='
    fi
    if (( CURRENT == 2 )); then
        local -a verbs=({verbs})
        _describe verb verbs
        return
    fi
    case "$verb $previous" in
{values}
    esac
    case "$verb" in
{plain}
    esac
    _files
}}
if [[ $funcstack[1] == _vitrail ]]; then _vitrail "$@"; else compdef _vitrail vitrail; fi"""


def _zsh(table: dict[str, Words]) -> str:
    values = [
        f'        "{verb} {flag}") {_compadd(known) or "_files"}; return ;;'
        for verb, words in table.items()
        for flag, known in words.values.items()
    ]
    plain = [
        f"        {verb}) if [[ $current == -* ]]; then {_compadd(words.flags)}; return; "
        f"else {_compadd(words.plain) or ':'}; fi ;;"
        for verb, words in table.items()
    ]
    plain.append(f"        completion) {_compadd(tuple(SHELLS))}; return ;;")
    verbs = " ".join(_quoted(f"{verb}:{line.replace(':', ',')}") for verb, line in _first_words().items())
    return _ZSH.format(verbs=verbs, values="\n".join(values), plain="\n".join(plain))


def _compadd(words: tuple[str, ...]) -> str:
    return f"compadd -- {' '.join(words)}" if words else ""


def _fish(table: dict[str, Words]) -> str:
    lines = ["complete -c vitrail -f -n __fish_use_subcommand"]
    for verb, line in _first_words().items():
        lines.append(f"complete -c vitrail -n __fish_use_subcommand -a {verb} -d {_quoted(line)}")
    for verb, words in table.items():
        seen = f"complete -c vitrail -n '__fish_seen_subcommand_from {verb}'"
        for flag in (word for word in words.flags if word.startswith("--")):
            known = words.values.get(flag)
            takes = "" if known is None else f" -x -a {_quoted(' '.join(known))}" if known else " -r"
            lines.append(f"{seen} -l {flag.removeprefix('--')}{takes}")
        if words.plain:
            lines.append(f"{seen} -a {_quoted(' '.join(words.plain))}")
    lines.append(f"complete -c vitrail -f -n '__fish_seen_subcommand_from completion' -a {_quoted(' '.join(SHELLS))}")
    return "\n".join(lines)


def _first_words() -> dict[str, str]:
    return {**VERBS, "completion": "print the completion script", "help": "say what there is"}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
