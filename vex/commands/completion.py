"""`vex completion`: what completes commands and flags in a shell, made of the table of commands; where neither is
wanted, the shell completes file names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vex.commands.arguments import COMMANDS
from vex.commands.parsing import Argument
from vex.web.manual import SUBJECTS

_PROGRAMS = "vex vex.pyz"


class _Place(NamedTuple):
    """What may come behind some words: words, and flags, each with what it is for."""

    words: dict[str, str]
    flags: dict[str, str]


def completion(shell: str) -> str:
    """Return the script for bash, zsh or fish."""
    return "\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](_places())) + "\n"


def _places() -> dict[str, _Place]:
    """Find what may come behind nothing, a group, or a command."""
    places = {"": _Place({}, {"--version": "print the version", "--help": "show help"})}
    for name, row in COMMANDS.rows.items():
        group, _, verb = name.rpartition(" ")
        if group and group not in places:
            places[""].words[group] = COMMANDS.groups[group]
            places[group] = _Place({}, {"--help": "show help"})
        places[group].words[verb] = row.purpose
        arguments = [*row.arguments, *COMMANDS.everywhere, Argument("--help", {"help": "show help"})]
        flags = {one.name: str(one.options["help"]) for one in arguments if one.name.startswith("-")}
        words = {word: "" for one in arguments for word in one.options.get("choices", ())}
        places[name] = _Place(words, {flag: text.replace("%%", "%") for flag, text in flags.items()})
    places["help"].words.update(dict.fromkeys(SUBJECTS, ""))
    return places


def _groups() -> str:
    return "|".join(COMMANDS.groups)


def _bash(places: dict[str, _Place]) -> Iterator[str]:
    yield f"# Completion of vex for bash; in a running one: source <(vex completion bash)\n{_BASH % _groups()}"
    for name, place in places.items():
        yield f"        {shlex.quote(name)}) words={_listed(place.words)} flags={_listed(place.flags)} ;;"
    yield f"{_BASH_END}\ncomplete -o default -F _vex {_PROGRAMS}"


def _listed(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


_BASH = """\
_vex() {
    local word=${COMP_WORDS[COMP_CWORD]} at= words= flags=
    [ "$COMP_CWORD" -gt 1 ] && at=${COMP_WORDS[1]}
    case $at in %s) [ "$COMP_CWORD" -gt 2 ] && at="$at ${COMP_WORDS[2]}" ;; esac
    case $at in"""
_BASH_END = """\
    esac
    case $word in -*) words=$flags ;; esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}"""


def _zsh(places: dict[str, _Place]) -> Iterator[str]:
    yield f"#compdef {_PROGRAMS}\n# Completion of vex for zsh; in a running one: source <(vex completion zsh)"
    yield _ZSH % _groups()
    for name, place in places.items():
        words, flags = (" ".join(_described(word, text) for word, text in each.items()) for each in place)
        yield f"        {shlex.quote(name)}) choices=({words}) flags=({flags}) ;;"
    yield _ZSH_END.replace("PROGRAMS", _PROGRAMS)


def _described(word: str, text: str) -> str:
    return shlex.quote(f"{word}:{text}" if text else word)


_ZSH = """\
_vex() {
    local at=
    local -a choices flags
    (( CURRENT > 2 )) && at=${words[2]}
    case $at in %s) (( CURRENT > 3 )) && at="$at ${words[3]}" ;; esac
    case $at in"""
_ZSH_END = """\
    esac
    if [[ ${words[CURRENT]} == -* ]]; then
        _describe flag flags
    elif (( ${#choices} )); then
        _describe word choices
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _vex ]]; then
    _vex "$@"
else
    compdef _vex PROGRAMS
fi"""


def _fish(places: dict[str, _Place]) -> Iterator[str]:
    yield "# Completion of vex for fish; in a running one: vex completion fish | source"
    for name, place in places.items():
        condition = _fish_condition(name)
        for word, text in place.words.items():
            yield f"complete -c vex -f -n {condition} -a {word} -d {_fish_quoted(text)}"
        for flag, text in place.flags.items():
            yield f"complete -c vex -n {condition} -l {flag[2:]} -d {_fish_quoted(text)}"


def _fish_condition(name: str) -> str:
    words = name.split()
    if not words:
        return "__fish_use_subcommand"
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
    if name in COMMANDS.groups:
        verbs = " ".join(row.rpartition(" ")[2] for row in COMMANDS.rows if row.startswith(f"{name} "))
        seen += f"; and not __fish_seen_subcommand_from {verbs}"
    return f"'{seen}'"


def _fish_quoted(text: str) -> str:
    """Quote for fish, which knows two escapes between single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
