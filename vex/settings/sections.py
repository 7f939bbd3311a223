"""The kinds of sections that a configuration file can have, as a table: a section begins with a line such as
`[repositories team/*]`, and ends with the next one or the file.

A section says something about a part of the registry; what it says is read again with SIGHUP. What a key means for a
repository is not here: see `registry/policies.py`.
"""

from __future__ import annotations

import re
from typing import Callable, NamedTuple

from vex.names import TagPatterns, is_repository_pattern
from vex.settings.config import Key
from vex.settings.values import DURATION, NUMBER, SIZE, SWITCH, ValueKind, shown

_BEGINNING = re.compile(r"\[\s*([a-zA-Z-]+)")
_HEADER = re.compile(r"\[\s*([a-zA-Z-]+)(?:\s+([^\]]*?))?\s*\]")

_PATTERNS = ValueKind(
    "TAGS",
    "patterns of tags with commas between them, such as v*, !*-rc*: letters, digits, _ . - and * for any characters,"
    " and ! before those that are left out again, which are not the first",
    TagPatterns.parse,
)
_AGE = ValueKind(
    DURATION.metavar,
    "a time such as 12h or 30d (leave the key out to have nothing go by its age)",
    DURATION.parse,
    DURATION.most,
)


class SectionKind(NamedTuple):
    """One row of the table: the word of the header, what comes after it with an example, how that is checked and what
    it must look like, the keys, each with an example as its default, and what such a section is for.
    """

    word: str
    argument: str
    example: str
    is_argument: Callable[[str], bool]
    accepts: str
    keys: tuple[Key, ...]
    description: str

    @property
    def header(self) -> str:
        """How such a section begins."""
        return f"[{self.word} {self.argument}]"


REPOSITORIES = SectionKind(
    "repositories",
    "PATTERN",
    "team/*",
    is_repository_pattern,
    "a name such as team/app, with * for any characters, such as team/*",
    (
        Key("immutable", "v*, !*-rc*", _PATTERNS, "Tags that are set once, and never pointed at anything else."),
        Key("protected", "latest, v*", _PATTERNS, "Tags that nobody deletes, and no rule."),
        Key("expire", "dev-*, pr-*", _PATTERNS, "Tags that the keys below may remove; they never remove another."),
        Key("expire-after", "30d", _AGE, "The age at which they go, since they were pushed or last pulled.", "1s"),
        Key(
            "keep-newest",
            "3",
            NUMBER,
            "So many of them stay whatever their age, the newest of each pattern of expire by itself.",
            "1",
        ),
        Key(
            "expire-untagged-after",
            "7d",
            _AGE,
            "The age at which manifests go that were pushed by digest, and that no tag and no index ever had.",
            "1s",
        ),
        Key(
            "expire-label",
            "yes",
            SWITCH,
            "Whether quay.expires-after, a label or an annotation of the image, has any tag expire; otherwise only"
            " those of expire.",
        ),
        Key(
            "quota",
            "50GiB",
            SIZE,
            "Bytes that the repository may hold, each blob counted once; a push past it fails.",
            "1",
        ),
    ),
    "What holds for the repositories that the pattern matches: a name, with * for any characters. Of several sections"
    " that match, each key is taken from the first that has it.",
)
KINDS: tuple[SectionKind, ...] = (REPOSITORIES,)


def parse_header(text: str) -> tuple[SectionKind | None, str, str]:
    """Read the line that begins a section: its kind, also where it can only be guessed, its argument, and what is
    wrong, "" where nothing is.
    """
    begun, whole = _BEGINNING.match(text), _HEADER.fullmatch(text)
    word, argument = begun[1] if begun else "", (whole[2] if whole else "") or ""
    kind = next((kind for kind in KINDS if kind.word == word), None) or _nearest(word)
    wrong = ""
    if not whole:
        known = " or ".join(kind.header for kind in KINDS)
        wrong = f"this does not begin a section: write {known}, without a comment, or delete this line"
    elif kind is None or kind.word != word:
        meant = f"did you mean {kind.header}?" if kind else "'vex describe' shows them all"
        wrong = f"there is no such kind of section; {meant}"
    elif not kind.is_argument(argument):
        wrong = f"{shown(argument)} is not {kind.accepts}; such a section begins with {kind.header}"
    return kind, argument, wrong


def _nearest(word: str) -> SectionKind | None:
    import difflib  # within a function: not needed to start

    near = difflib.get_close_matches(word.lower(), [kind.word for kind in KINDS], 1)
    return next((kind for kind in KINDS if kind.word in near), None)
