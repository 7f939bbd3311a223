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
from typing import Callable

from vex import VERSION
from vex.access.users import Users, check_password, check_user
from vex.commands.arguments import parser
from vex.commands.passwords import known_password, new_password
from vex.errors import VexError
from vex.logs import escaped, log_to_standard_error
from vex.service.serve import serve
from vex.settings.config import KEYS, Config
from vex.settings.file import Mistakes, default_path, describe, load
from vex.storage.directory import registry_in, registry_made_in
from vex.storage.schema import WITH_TOKENS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if not (sys.argv[1:] if arguments is None else arguments):
        # Imported here, as in `_quickstart`.
        from vex.commands.help import introduction

        print(introduction(), end="", file=sys.stderr)
        return 2
    options = parser(_version_text()).parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
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
    with Progress() as progress:

        def say(text: str) -> None:
            progress.clear()
            print(text)

        config = _config(options)
        problems = check(config.data_dir, wanted, progress, say=say)
        if problems and options.repair:
            from vex.commands.acting import tell

            tell(config, "revised")
        return 1 if problems else 0


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


def _rm(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.images import remove

    return remove(_config(options), options.images, yes=options.yes, as_json=options.json)


def _tag(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.images import tag

    return tag(_config(options), options.source, options.target, as_json=options.json)


def _rules(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands import rules

    config = _config(options)
    if options.verb == "plan":
        return rules.plan(config, options.repositories, as_json=options.json)
    if options.verb == "apply":
        return rules.apply(config, options.plan, as_json=options.json)
    return rules.explain(config, options.image, as_json=options.json)


def _space(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.space import df, status

    return {"df": df, "status": status}[options.command](_config(options), as_json=options.json)


def _backup(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.backup import backup
    from vex.progress import Progress

    with Progress() as progress:
        done = backup(_config(options).data_dir, options.directory, progress)
    print(done)
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
        with Progress() as progress:
            done = import_images(config, wanted, target, source, progress)
        print(done)
    return 0


def _export(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.progress import Progress
    from vex.transfer.exporting import export

    config = _config(options)
    with Progress() as progress:
        done = export(config.data_dir, options.image, options.directory, progress, config.public_url)
    print(done)
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


def _version_text() -> str:
    return f"vex {VERSION} (Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version})"


def _version(_options: argparse.Namespace) -> int:
    print(_version_text())
    return 0


def _completion(options: argparse.Namespace) -> int:
    # Imported here, as in `_quickstart`.
    from vex.commands.completion import completion

    print(completion(options.shell), end="")
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve,
    "quickstart": _quickstart,
    "user add": _user_add,
    "user password": _user_password,
    "user delete": _user_delete,
    "user list": _user_list,
    "token add": _token,
    "token delete": _token,
    "token list": _token,
    "token rotate-key": _token,
    "certificate renew": _certificate,
    "certificate authority": _certificate,
    "check": _check,
    "log": _log,
    "ls": _ls,
    "rm": _rm,
    "tag": _tag,
    "rules plan": _rules,
    "rules apply": _rules,
    "rules explain": _rules,
    "df": _space,
    "status": _space,
    "backup": _backup,
    "import": _import,
    "export": _export,
    "describe": _describe,
    "testconfig": _testconfig,
    "version": _version,
    "completion": _completion,
    "help": _help,
}
