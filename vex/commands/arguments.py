"""What the commands take: a row for each, of which the parser of the command line is made; and how values are read.

What a command does is in `cli.py`, under the name that its row has here; `examples.py` has an example for each.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from vex.commands.examples import EXAMPLES
from vex.commands.parsing import Argument, Commands, Row, make_parser
from vex.settings.config import KEYS, Key
from vex.settings.values import DURATION, SIZE


def parser(version: str) -> argparse.ArgumentParser:
    """Make the parser, which can tell the version."""
    return make_parser(COMMANDS, version)


# Values


def _checked(key: Key) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            key.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {key.accepts}") from None
        return text

    return check


def _duration(text: str) -> float:
    try:
        return DURATION.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {DURATION.accepts}") from None


def _rate(text: str) -> int:
    try:
        rate: int = SIZE.parse(text)
    except ValueError:
        rate = 0
    if not rate:
        raise argparse.ArgumentTypeError(f"{text!r} is not {SIZE.accepts}, of 1 or more")
    return rate


def _lifetime(text: str) -> float:
    try:
        lifetime: float = DURATION.parse(text)
    except ValueError:
        lifetime = 0
    if not 1 <= lifetime <= DURATION.parse(DURATION.most):
        raise argparse.ArgumentTypeError(f"{text!r} is not {DURATION.accepts}, at least 1s, at most {DURATION.most}")
    return lifetime


def _plan_number(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a plan")
    return int(text)


# The rows


def _argument(name: str, metavar: str, help_text: str | None = None, **options: Any) -> Argument:
    return Argument(name, {"metavar": metavar, "help": help_text, **options})


def _switch(name: str, help_text: str) -> Argument:
    return Argument(name, {"action": "store_true", "help": help_text})


def _keys() -> Iterator[Argument]:
    """Give a flag for each key of the configuration, under the heading of its group."""
    heading = ""
    for key in KEYS:
        heading = _HEADINGS.get(key.name, heading)
        if key.name != "data-dir":
            text = f"{key.description} Default: {key.default or 'none'}".replace("%", "%%")
            flag = _argument(f"--{key.name}", key.metavar, text, dest=key.name, type=_checked(key))
            yield flag._replace(heading=heading)


# Each group of keys, from its first one on.
_HEADINGS = {
    "public-addr": "where it listens, and with which certificates",
    "public-url": "how clients come here, and who sends blobs",
    "data-dir": "what is kept, and for how long",
    "log-format": "what is logged",
    "request-line-limit": "limits of requests, contents, lists and logins",
    "handshake-timeout": "limits of connections",
}
_EVERYWHERE = (
    _argument(
        "--config",
        "FILE",
        "configuration file; default: vex.conf in the current directory, if there is one",
        type=Path,
    ),
    _argument("--data-dir", "DIR", "where the registry keeps its data; default: data", dest="data-dir"),
)
_NAME = _argument("name", "NAME")
_GROUPS = {
    "user": "add, change, delete and list users",
    "token": "make, list and withdraw tokens: passwords of machines",
    "rules": "show and apply what the rules for tags remove",
    "certificate": "renew the certificate that quickstart made, or give an older one an authority",
}

ROWS = {
    "serve": Row(
        "start the registry",
        (
            _switch("--debug", "log requests and answers"),
            _argument(
                "--first-user",
                "NAME",
                "while there is no user, add this one, and print the password once on standard output; on a terminal"
                " that is done without being asked for",
                default="",
            ),
            *_keys(),
        ),
        usage="vex serve [--debug] [--first-user NAME] [--config FILE] [--data-dir DIR] [--KEY VALUE ...]",
    ),
    "quickstart": Row(
        "set up a registry in the current directory: configuration, certificate, service, user",
        (
            _argument("username", "USERNAME"),
            _argument(
                "hostname",
                "HOSTNAME",
                "the name that clients use for this machine; default: localhost",
                nargs="?",
                default="localhost",
            ),
        ),
    ),
    "user add": Row("add a user; the password is asked for, or read as one line of standard input", (_NAME,)),
    "user password": Row(
        "change a user's password; it is asked for, or read as one line of standard input",
        (_NAME,),
    ),
    "user delete": Row("delete a user", (_NAME,)),
    "user list": Row("list all users"),
    "token add": Row(
        "make a token, and print it: it works as the password of the user NAME, and is not shown again",
        (
            _NAME,
            _argument(
                "--expires",
                DURATION.metavar,
                "how long it is valid, such as 90d; default: until it is withdrawn",
                type=_lifetime,
            ),
            _argument(
                "--repository",
                "PATTERN",
                "the repositories that it is for: a name, * in it being any characters",
                default="*",
            ),
            _switch("--read-only", "it pulls, and does not push or delete"),
            _switch(
                "--not-counted",
                "what it pulls does not count as pulled for vex's rules, as for scanners and replicas",
            ),
        ),
    ),
    "token delete": Row("withdraw a token, from the next request on", (_NAME,)),
    "token list": Row("list all tokens, with their last use"),
    "token rotate-key": Row(
        "make a new key for the tokens that the registry itself gives to docker and others: whoever logged in with"
        " docker logs in again"
    ),
    "certificate renew": Row(
        "make a new certificate, with the key of the old one, that clients who trust ca.crt.pem trust already"
    ),
    "certificate authority": Row(
        "make ca.crt.pem and ca.key.pem beside a certificate that has none, so that clients can be told to trust it"
        " before renew uses it"
    ),
    "check": Row(
        "tell what is wrong with the data, a sentence each, and exit 1 if anything is; the registry may be running",
        (
            _switch("--repair", "mark damaged blobs, so that the next push heals them; remove what belongs to nothing"),
            _switch("--hash", "read every blob, and compare it with its digest"),
            _argument(
                "--hash-rate",
                SIZE.metavar,
                "as --hash, reading this much in a second at most, such as 50MiB",
                type=_rate,
                default=0,
            ),
        ),
    ),
    "log": Row(
        "show the changes of tags, each with its time, user, address and digests; the registry may be running",
        (
            _argument("wanted", "REPOSITORY[:TAG]", "of this repository or tag; default: all", nargs="?", default=""),
            _argument(
                "--since",
                DURATION.metavar,
                "of this last time only, such as 90m or 7d",
                type=_duration,
                default=0.0,
            ),
            _switch("--json", "as JSON, an object a line"),
        ),
        more=". The oldest comes first, so that the newest is the last line.",
    ),
    "ls": Row(
        "list repositories, or the tags of one; the registry may be running",
        (
            _argument("repository", "REPOSITORY", "list its tags; default: all repositories", nargs="?", default=""),
            _switch("--json", "as JSON, an object a line"),
        ),
    ),
    "rm": Row(
        "delete tags, and what they alone kept, after showing that; the registry may be running",
        (
            _argument("images", "REPOSITORY:TAG", nargs="+"),
            _switch("--yes", "delete without asking"),
            _switch("--json", "as JSON, an object a line for each tag that was to be deleted"),
        ),
    ),
    "tag": Row(
        "point a tag at an image, in its repository or in another, with its referrers and signatures; no bytes are"
        " copied, and the registry may be running",
        (
            _argument("source", "SOURCE", "the image: REPOSITORY:TAG or REPOSITORY@DIGEST"),
            _argument("target", "TARGET", "the tag, as REPOSITORY:TAG; one that is there is moved"),
            _switch("--json", "as JSON"),
        ),
    ),
    "rules plan": Row(
        "show which tags the rules of the configuration remove now, and give that a number; the registry may be"
        " running",
        (
            _argument(
                "repositories",
                "REPOSITORY",
                "names, or patterns such as 'team/*'; default: all repositories",
                nargs="*",
            ),
            _switch("--json", "as JSON"),
        ),
    ),
    "rules apply": Row(
        "remove what a plan names, but for what has moved or was pulled since; exits 1 if it left out anything",
        (
            _argument("plan", "NUMBER", "the number of the plan", type=_plan_number),
            _switch("--json", "as JSON, an object a line for each tag of the plan"),
        ),
    ),
    "rules explain": Row(
        "say what the rules make of a tag, why, and when",
        (_argument("image", "REPOSITORY:TAG"), _switch("--json", "as JSON")),
    ),
    "df": Row(
        "show what takes the space: what each repository shares with others, and what would come free with it; the"
        " registry may be running",
        (_switch("--json", "as JSON"),),
    ),
    "status": Row(
        "tell whether the registry runs, where and since when, and how much is left of its disk; exits 1 if it does"
        " not run",
        (_switch("--json", "as JSON"),),
    ),
    "backup": Row(
        "copy the registry, which may be running, to a directory that is new, empty or an earlier backup",
        (
            _argument(
                "directory",
                "DIR",
                "becomes a data directory; a backup that is there already is brought up to date",
                type=Path,
            ),
        ),
    ),
    "import": Row(
        "copy images from files or another registry into the running registry",
        (
            _argument(
                "source",
                "SOURCE",
                "an OCI image layout, an archive of it or of docker save, or a registry as https://HOST[:PORT]",
            ),
            _argument(
                "--repository",
                "NAME",
                "of a registry: only these, such as 'team/*', may be repeated; of files: where they go",
                action="append",
                default=[],
            ),
            _argument(
                "--tag",
                "TAG",
                "of a registry: only these, such as 'v1.*', may be repeated; of files: the tag",
                action="append",
                default=[],
            ),
            _argument(
                "--username",
                "NAME",
                "a user of the running registry; its password is asked for, or read as one line of standard input",
                required=True,
            ),
            _argument(
                "--source-username",
                "NAME",
                "a user of the registry to import from; its password is asked for, or read as the next line of"
                " standard input",
            ),
            _argument("--to", "URL", "the running registry; default: auth-addr of the configuration", default=""),
        ),
    ),
    "export": Row(
        "write images to an OCI image layout; the registry may be running",
        (
            _argument("image", "REPOSITORY[:TAG]", "an image, or all images of a repository"),
            _argument("directory", "DIR", "the layout; one that is there already is added to", type=Path),
        ),
    ),
    "describe": Row(
        "print an annotated configuration file with every key and its default, or something else to start from",
        (
            _switch("--grafana", "print a Grafana dashboard, as JSON"),
            _switch("--dockerfile", "print a Dockerfile that runs the registry in a container"),
        ),
        one_of=True,
    ),
    "testconfig": Row("check a configuration file", (_argument("file", "FILE", type=Path),)),
    "version": Row("print the version"),
    "completion": Row(
        "print what completes commands and flags in a shell",
        (_argument("shell", "SHELL", "bash, zsh or fish", choices=("bash", "zsh", "fish")),),
    ),
    "help": Row(
        "list the subjects of the manual, or show one of them",
        (_argument("subject", "SUBJECT", nargs="?", default=""),),
    ),
}

COMMANDS = Commands(ROWS, _GROUPS, _EVERYWHERE, EXAMPLES)
