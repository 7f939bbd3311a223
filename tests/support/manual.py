"""What is written for people: the README and the pages of the manual, and the blocks in them that tests run."""

from __future__ import annotations

import re

from tests.support.server import TOP

README = (TOP / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((TOP / "vex" / "manual").glob("*.md"))}
TEXT = "\n".join([README, *PAGES.values()])
_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Return the fenced blocks of a language, "" for none, in the order of the text."""
    return [block for named, block in _BLOCK.findall(text) if named == language]


def block_with(words: str, text: str = TEXT) -> str:
    """Return the one fenced block that holds these words."""
    [found] = (block for _, block in _BLOCK.findall(text) if words in block)
    return str(found)
