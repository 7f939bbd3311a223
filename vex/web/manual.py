"""The manual: its pages, which are the Markdown files of `vex/manual/`, for `vex help` and for `/help/`.

The first line of a page is its title, and its first paragraph one sentence that says what it is for.
"""

from __future__ import annotations

import pkgutil

# In the order in which they are listed.
SUBJECTS = (
    "service",
    "tls",
    "users-and-tokens",
    "one-port",
    "commands",
    "deleting-and-space",
    "rules",
    "moving",
    "backup-and-check",
    "metrics",
    "proxies",
    "scaling",
    "kubernetes",
    "ci",
    "troubleshooting",
    "upgrading",
    "configuration",
    "proof",
    "benchmark",
)


def page_of(subject: str) -> str:
    """Return the text of the page of one of SUBJECTS."""
    content = pkgutil.get_data("vex", f"manual/{subject}.md")
    if content is None:
        raise FileNotFoundError(subject)
    return content.decode()


def title_of(text: str) -> str:
    """Return the title of a page."""
    return text.partition("\n")[0].lstrip("# ")


def purpose_of(text: str) -> str:
    """Return the sentence that says what a page is for."""
    return " ".join(text.split("\n\n", 2)[1].split())
