"""The command line. Exit codes: 0, 1 for a failure with one line that says why and what to do, 2 for a wrong command
line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Callable, NoReturn

from vex import VERSION
from vex.access.users import Users, check_password, check_user
from vex.commands.passwords import known_password, new_password
from vex.errors import VexError
from vex.logs import escaped, log_to_standard_error
from vex.service.serve import serve
from vex.settings.config import KEYS, Config, Key
from vex.settings.file import Mistakes, default_path, describe, load
from vex.settings.values import DURATION, SIZE
from vex.storage.directory import registry_in, registry_made_in
from vex.storage.schema import WITH_TOKENS

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Ends with what is wrong with a command line, and where help is."""

    def error(self, message: str) -> NoReturn:
        super().error(f"{message}; see '{self.prog} --help'")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if not (sys.argv[1:] if arguments is None else arguments):
        # Imported here, as in `_quickstart`.
        from vex.commands.help import introduction

        print(introduction(), end="", file=sys.stderr)
        return 2
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except VexError as error:
        print(f"vex: {escaped(str(error))}", file=sys.stderr)
        return 1
    except MemoryError:
        print("vex: out of memory; free some, or raise the limit of this process, then start it again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Who read the output has seen enough; what is left of it goes nowhere, so that Python does not complain about
        # it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> _Parser:
    parser = _Parser(prog="vex", description="A container registry in one file.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    everywhere = _Parser(add_help=False)
    everywhere.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="configuration file; default: vex.conf in the current directory, if there is one",
    )
    everywhere.add_argument(
        "--data-dir", metavar="DIR", dest="data-dir", help="where the registry keeps its data; default: data"
    )

    def add(name: str, command: Command, text: str) -> _Parser:
        added = commands.add_parser(name, parents=[everywhere], help=text, description=text)
        added.set_defaults(command=command)
        return added

    _serve_flags(add("serve", _serve, "start the registry"))
    first = add(
        "quickstart",
        _quickstart,
        "set up a registry in the current directory: configuration, certificate, service, user",
    )
    first.add_argument("username", metavar="USERNAME")
    first.add_argument(
        "hostname",
        metavar="HOSTNAME",
        nargs="?",
        default="localhost",
        help="the name that clients use for this machine; default: localhost",
    )
    _user_commands(commands, everywhere)
    _token_commands(commands, everywhere)
    _certificate_commands(commands, everywhere)
    _check_flags(
        add(
            "check",
            _check,
            "tell what is wrong with the data, a sentence each, and exit 1 if anything is; the registry may be running",
        )
    )
    _log_flags(
        add(
            "log",
            _log,
            "show the changes of tags, each with its time, user, address and digests; the registry may be running",
        )
    )
    _ls_flags(add("ls", _ls, "list repositories, or the tags of one; the registry may be running"))
    saved = add(
        "backup",
        _backup,
        "copy the registry, which may be running, to a directory that is new, empty or an earlier backup",
    )
    saved.add_argument(
        "directory",
        metavar="DIR",
        type=Path,
        help="becomes a data directory; a backup that is there already is brought up to date",
    )
    _moving_flags(add("import", _import, "copy images from files or another registry into the running registry"))
    exported = add("export", _export, "write images to an OCI image layout; the registry may be running")
    exported.add_argument("image", metavar="REPOSITORY[:TAG]", help="an image, or all images of a repository")
    exported.add_argument(
        "directory", metavar="DIR", type=Path, help="the layout; one that is there already is added to"
    )
    _describe_flags(
        add(
            "describe",
            _describe,
            "print an annotated configuration file with every key and its default, or something else to start from",
        )
    )
    add("testconfig", _testconfig, "check a configuration file").add_argument("file", metavar="FILE", type=Path)
    add("version", _version, "print the version")
    manual = commands.add_parser("help", help="list the subjects of the manual, or show one of them")
    manual.add_argument("subject", metavar="SUBJECT", nargs="?", default="")
    manual.set_defaults(command=_help)
    return parser


def _serve_flags(parser: _Parser) -> None:
    parser.usage = "vex serve [--debug] [--first-user NAME] [--config FILE] [--data-dir DIR] [--KEY VALUE ...]"
    parser.add_argument("--debug", action="store_true", help="log requests and answers")
    first = (
        "while there is no user, add this one, and print the password once on standard output; on a terminal that is"
        " done without being asked for"
    )
    parser.add_argument("--first-user", metavar="NAME", default="", help=first)
    for key in KEYS:
        if key.name != "data-dir":
            help_text = f"{key.description} Default: {key.default or 'none'}".replace("%", "%%")
            parser.add_argument(f"--{key.name}", metavar=key.metavar, dest=key.name, type=_checked(key), help=help_text)


def _checked(key: Key) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            key.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {key.accepts}") from None
        return text

    return check


def _check_flags(parser: _Parser) -> None:
    parser.add_argument(
        "--repair",
        action="store_true",
        help="mark damaged blobs, so that the next push heals them; remove what belongs to nothing",
    )
    parser.add_argument("--hash", action="store_true", help="read every blob, and compare it with its digest")
    parser.add_argument(
        "--hash-rate",
        metavar=SIZE.metavar,
        type=_rate,
        default=0,
        help="as --hash, reading this much in a second at most, such as 50MiB",
    )


def _moving_flags(parser: _Parser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an OCI image layout, an archive of it or of docker save, or a registry as https://HOST[:PORT]",
    )
    only = "of a registry: only these, such as {}, may be repeated; of files: {}"
    parser.add_argument(
        "--repository", action="append", default=[], metavar="NAME", help=only.format("'team/*'", "where they go")
    )
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help=only.format("'v1.*'", "the tag"))
    asked = "its password is asked for, or read as {} line of standard input"
    parser.add_argument(
        "--username", metavar="NAME", required=True, help=f"a user of the running registry; {asked.format('one')}"
    )
    parser.add_argument(
        "--source-username", metavar="NAME", help=f"a user of the registry to import from; {asked.format('the next')}"
    )
    parser.add_argument(
        "--to", metavar="URL", default="", help="the running registry; default: auth-addr of the configuration"
    )


def _describe_flags(parser: _Parser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--grafana", action="store_true", help="print a Grafana dashboard, as JSON")
    which.add_argument(
        "--dockerfile", action="store_true", help="print a Dockerfile that runs the registry in a container"
    )


def _log_flags(parser: _Parser) -> None:
    parser.description = f"{parser.description}. The oldest comes first, so that the newest is the last line."
    parser.add_argument(
        "wanted", metavar="REPOSITORY[:TAG]", nargs="?", default="", help="of this repository or tag; default: all"
    )
    parser.add_argument(
        "--since",
        metavar=DURATION.metavar,
        type=_duration,
        default=0.0,
        help="of this last time only, such as 90m or 7d",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, an object a line")


def _ls_flags(parser: _Parser) -> None:
    parser.add_argument(
        "repository", metavar="REPOSITORY", nargs="?", default="", help="list its tags; default: all repositories"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, an object a line")


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


def _user_commands(commands: argparse._SubParsersAction[_Parser], everywhere: _Parser) -> None:
    parser = commands.add_parser("user", help="add, change, delete and list users")
    verbs = parser.add_subparsers(metavar="ACTION", required=True)
    for verb, command, text in (
        ("add", _user_add, "add a user; the password is asked for, or read as one line of standard input"),
        (
            "password",
            _user_password,
            "change a user's password; it is asked for, or read as one line of standard input",
        ),
        ("delete", _user_delete, "delete a user"),
    ):
        added = verbs.add_parser(verb, parents=[everywhere], help=text, description=text)
        added.add_argument("name", metavar="NAME")
        added.set_defaults(command=command)
    verbs.add_parser("list", parents=[everywhere], help="list all users").set_defaults(command=_user_list)


def _token_commands(commands: argparse._SubParsersAction[_Parser], everywhere: _Parser) -> None:
    parser = commands.add_parser("token", help="make, list and withdraw tokens: passwords of machines")
    verbs = parser.add_subparsers(metavar="ACTION", required=True)
    for verb, text in (
        ("add", "make a token, and print it: it works as the password of the user NAME, and is not shown again"),
        ("delete", "withdraw a token, from the next request on"),
        ("list", "list all tokens, with their last use"),
        (
            "rotate-key",
            (
                "make a new key for the tokens that the registry itself gives to docker and others: whoever logged in"
                " with docker logs in again"
            ),
        ),
    ):
        added = verbs.add_parser(verb, parents=[everywhere], help=text, description=text)
        added.set_defaults(command=_token, verb=verb)
        if verb in ("add", "delete"):
            added.add_argument("name", metavar="NAME")
        if verb == "add":
            added.add_argument(
                "--expires",
                metavar=DURATION.metavar,
                type=_lifetime,
                help="how long it is valid, such as 90d; default: until it is withdrawn",
            )
            added.add_argument(
                "--repository",
                metavar="PATTERN",
                default="*",
                help="the repositories that it is for: a name, * in it being any characters",
            )
            added.add_argument("--read-only", action="store_true", help="it pulls, and does not push or delete")


def _certificate_commands(commands: argparse._SubParsersAction[_Parser], everywhere: _Parser) -> None:
    parser = commands.add_parser(
        "certificate", help="renew the certificate that quickstart made, or give an older one an authority"
    )
    verbs = parser.add_subparsers(metavar="ACTION", required=True)
    for verb, text in (
        (
            "renew",
            "make a new certificate, with the key of the old one, that clients who trust ca.crt.pem trust already",
        ),
        (
            "authority",
            (
                "make ca.crt.pem and ca.key.pem beside a certificate that has none, so that clients can be told to"
                " trust it before renew uses it"
            ),
        ),
    ):
        verbs.add_parser(verb, parents=[everywhere], help=text, description=text).set_defaults(
            command=_certificate, verb=verb
        )


def _lifetime(text: str) -> float:
    try:
        lifetime: float = DURATION.parse(text)
    except ValueError:
        lifetime = 0
    if not 1 <= lifetime <= DURATION.parse(DURATION.most):
        raise argparse.ArgumentTypeError(f"{text!r} is not {DURATION.accepts}, at least 1s, at most {DURATION.most}")
    return lifetime


def _config(options: argparse.Namespace) -> Config:
    given = vars(options)
    flags = {key.name: given[key.name] for key in KEYS if given.get(key.name) is not None}
    return load(options.config or default_path(), flags)


def _serve(options: argparse.Namespace) -> int:
    if options.first_user:
        check_user(options.first_user)
    # Found once: if the file is gone when it is to be read again, that is a mistake, and no wish for the defaults.
    options.config = options.config or default_path()
    config = _config(options)
    log_to_standard_error(config.log_format, "debug" if options.debug else config.log_level)
    return serve(config, lambda: _config(options), options.first_user)


def _quickstart(options: argparse.Namespace) -> int:
    # Imported here, since from the zipapp every module is compiled anew, and `serve` must start quickly.
    from vex.commands.quickstart import quickstart

    return quickstart(options.username, options.hostname, new_password)


def _certificate(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.certificate_files import begin_authority, renew

    for line in {"renew": renew, "authority": begin_authority}[options.verb](_config(options), time.time()):
        print(line)
    return 0


def _check(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.check import Options, check
    from vex.progress import Progress

    wanted = Options(options.repair, options.hash or options.hash_rate > 0, options.hash_rate)
    return 1 if check(_config(options).data_dir, wanted, Progress()) else 0


def _log(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.log import show, wanted

    what = wanted(options.wanted, options.since, time.time())
    if not show(_config(options).data_dir, what, as_json=options.json):
        print("vex: no change of a tag is recorded for this", file=sys.stderr)
    sys.stdout.flush()
    return 0


def _ls(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.inventory import ls

    return ls(_config(options), options.repository, as_json=options.json)


def _backup(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.backup import backup
    from vex.progress import Progress

    print(backup(_config(options).data_dir, options.directory, Progress()))
    return 0


def _import(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.progress import Progress
    from vex.transfer.ends import check_ends, target_registry
    from vex.transfer.importing import import_images
    from vex.transfer.remote import Login
    from vex.transfer.sources import Selection

    config = _config(options)
    wanted = Selection(options.source, options.repository, options.tag)
    check_ends(config, options.to, wanted)
    with contextlib.closing(
        target_registry(config, options.to, Login(options.username, known_password(options.username)))
    ) as target:
        source = (
            Login(options.source_username, known_password(options.source_username)) if options.source_username else None
        )
        print(import_images(config, wanted, target, source, Progress()))
    return 0


def _export(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.progress import Progress
    from vex.transfer.exporting import export

    config = _config(options)
    print(export(config.data_dir, options.image, options.directory, Progress(), config.public_url))
    return 0


def _describe(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    if options.grafana:
        from vex.commands.dashboard import dashboard

        print(dashboard())
    elif options.dockerfile:
        from vex.commands.dockerfile import DOCKERFILE

        print(DOCKERFILE, end="")
    else:
        print(describe(), end="")
    return 0


def _testconfig(options: argparse.Namespace) -> int:
    try:
        load(options.file, {})
    except Mistakes as mistakes:
        for mistake in mistakes.all:
            print(f"vex: {escaped(mistake)}", file=sys.stderr)
        return 1
    print(f"{options.file}: OK")
    return 0


def _version(_options: argparse.Namespace) -> int:
    print(f"vex {VERSION} (Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version})")
    return 0


def _help(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.help import show, subjects

    show(options.subject) if options.subject else print(subjects(), end="")
    return 0


def _with_users(options: argparse.Namespace, work: Callable[[Users], None]) -> int:
    with registry_in(_config(options).data_dir) as database:
        work(Users(database))
    return 0


def _user_add(options: argparse.Namespace) -> int:
    # Whatever is refused is refused before a registry is made for it.
    check_user(options.name)
    data = _config(options).data_dir
    if (data / "vex.db").exists():
        # Nobody types a password for a name that is taken. Another process may be making the registry at this moment.
        with registry_made_in(data, WITH_TOKENS) as database:
            Users(database).check_new(options.name)
    password = new_password()
    check_password(password)
    # A name is not that of a token too, so there must be those.
    with registry_made_in(data, WITH_TOKENS) as database:
        Users(database).add(options.name, password)
    return 0


def _user_password(options: argparse.Namespace) -> int:
    def change(users: Users) -> None:
        users.check_known(options.name)
        users.set_password(options.name, new_password())

    return _with_users(options, change)


def _user_delete(options: argparse.Namespace) -> int:
    return _with_users(options, lambda users: users.delete(options.name))


def _user_list(options: argparse.Namespace) -> int:
    return _with_users(options, lambda users: print(*users.names(), sep="\n", end="\n" if users.names() else ""))


def _token(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.tokens import run

    run(options, _config(options).data_dir)
    return 0
