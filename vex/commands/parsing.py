"""The parser of the command line, made of rows (`arguments.py`), and how it speaks: help with examples, options in
groups, and what a word that it does not know may have been meant to be.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

_EXAMPLES = "examples:\n"


class Argument(NamedTuple):
    """An argument: its name or flags, what `argparse` is told of it, and under which heading help has it."""

    name: str
    options: dict[str, Any]
    heading: str = ""


class Row(NamedTuple):
    """What a command is for and takes; `more` is said in its own help only. With `one_of`, arguments exclude one
    another.
    """

    purpose: str
    arguments: Sequence[Argument] = ()
    more: str = ""
    usage: str | None = None
    one_of: bool = False


class Commands(NamedTuple):
    """All commands: rows by name, of one word or of a group and a word; what groups are for; what every command takes;
    and examples, by the names of commands and groups, "" for the program.
    """

    rows: Mapping[str, Row]
    groups: Mapping[str, str]
    everywhere: Sequence[Argument]
    examples: Mapping[str, Sequence[str]]


def make_parser(known: Commands, version: str) -> argparse.ArgumentParser:
    """Make the parser: it sets `command` to the name of a row, and `verb` to the last word of that."""
    made = _Parser(prog="vex", description="A container registry in one file.", epilog=_epilog(known, ""))
    made.add_argument("--version", action="version", version=version, help="print the version")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    everywhere = _Parser(add_help=False)
    _add(everywhere, known.everywhere)
    groups: dict[str, argparse._SubParsersAction[_Parser]] = {"": commands}
    for name, row in known.rows.items():
        group, _, verb = name.rpartition(" ")
        if group not in groups:
            parser = commands.add_parser(
                group, help=known.groups[group], description=known.groups[group], epilog=_epilog(known, group)
            )
            groups[group] = parser.add_subparsers(metavar="ACTION", required=True)
        command = groups[group].add_parser(
            verb,
            parents=[everywhere],
            help=row.purpose,
            description=row.purpose + row.more,
            usage=row.usage,
            epilog=_epilog(known, name),
        )
        command.set_defaults(command=name, verb=verb, parser=command)
        _add(command.add_mutually_exclusive_group() if row.one_of else command, row.arguments)
    return made


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Say, behind a sentence, what was meant perhaps; "" where nothing is like it."""
    import difflib  # much to load, for a mistake alone

    near = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


class _Help(argparse.HelpFormatter):
    """Leaves the lines of examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """Ends with what is wrong with a command line, and where help is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        super().error(f"{message}{'' if message.endswith('?') else ';'} see '{self.prog} --help'")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line; one with words that nobody asked for ends here."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            options.parser.refuse(rest[0])
        return options

    def refuse(self, word: str) -> NoReturn:
        """End with a word that is not known."""
        if not word.startswith("-"):
            self.error(f"there is no place for {word!r}")
        flag = word.partition("=")[0]
        self.error(f"there is no {flag}{did_you_mean(flag, self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            text = f"there is no {str(action.metavar).lower()} {value!r}{did_you_mean(str(value), action.choices)}"
            raise argparse.ArgumentError(None, text)


def _epilog(known: Commands, name: str) -> str | None:
    examples = known.examples.get(name)
    return _EXAMPLES + "\n".join(f"  {line}" for line in examples).replace("%", "%%") if examples else None


def _add(to: argparse._ActionsContainer, arguments: Sequence[Argument]) -> None:
    places = {"": to}
    for name, options, heading in arguments:
        if heading not in places:
            places[heading] = to.add_argument_group(heading)
        places[heading].add_argument(name, **options)
