"""The table of the operations: what the command line does with a registry, in the one that runs, or, where none runs,
on its data directory.

An operation is a function of this room that takes `Parts` and its arguments by name, and gives rows: dictionaries of
what JSON knows. Whatever it raises of `errors.py` is told to the person, also behind rows. It is the same function in
both places, so that results, audit lines and events are the same; how a command reaches it is in
`commands/acting.py`, and who may ask the running registry in `service/control.py`.

To add one:

1. write the function in a module of this room: `def wipe(parts: Parts, repository: str, last: str) -> Iterator[Row]`.
   Names arrive as text: check them with `names.py`. It may be a generator: then it runs while its rows are sent. Long
   work calls `parts.work.step()` after each small piece, and reads with `parts.storage.database.browse(parts.work)`;
   between two rows it holds neither a lock nor a transaction, since who reads them may take their time. What it
   changes has the actor `parts.actor`;
2. add a row to `OPERATIONS`, with the type of each argument: `str`, `int`, `bool`, or `list` for a list of texts. A
   command gives all of them, each time;
3. in a command: `for row in act(config, "wipe", repository=..., last=...)`, and `commands/tables.py` prints rows.

A row with the one key `progress` tells how far the work is, as text for a person; `act` shows it, and gives the others.
An answer is one transaction's worth of looking, or one piece of work: what may have a million rows is asked for in
pages, as `ls` is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Callable, NamedTuple

from vex.errors import BAD_REQUEST, NOT_FOUND, RegistryError
from vex.formats.strict_json import NotStrict, is_deeper, load_object
from vex.registry import inventory, planning, retagging, space, untagging
from vex.registry.parts import Parts, Row

_ARGUMENTS_DEPTH = 3
_OTHER = "it runs another version than this command: restart it"


class Operation(NamedTuple):
    """What is done, and the types of its arguments, by their names."""

    work: Callable[..., Iterator[Row]]
    arguments: Mapping[str, type]


def _revised(parts: Parts) -> Iterator[Row]:
    """Have answers and pages be made anew: another process has changed what they are made from."""
    parts.storage.revisions.all_changed()
    return iter(())


OPERATIONS: dict[str, Operation] = {
    "df": Operation(space.df, {}),
    "ls": Operation(inventory.ls, {"repository": str, "last": str, "limit": int}),
    "revised": Operation(_revised, {}),
    "rm": Operation(untagging.remove, {"images": list}),
    "rm-plan": Operation(untagging.plan, {"images": list}),
    "rules-apply": Operation(planning.apply, {"plan": int}),
    "rules-explain": Operation(planning.explain, {"image": str}),
    "rules-plan": Operation(planning.plan, {"repositories": list}),
    "rules-planned": Operation(planning.planned, {"plan": int, "last": int, "limit": int}),
    "status": Operation(space.status, {}),
    "tag": Operation(retagging.tag, {"source": str, "target": str}),
}


def operation(name: str, arguments: Mapping[str, Any]) -> Callable[[Parts], Iterator[Row]]:
    """Return what runs an operation with checked arguments; raises NOT_FOUND and BAD_REQUEST."""
    found = OPERATIONS.get(name)
    if found is None:
        raise RegistryError(NOT_FOUND, f"the registry knows no operation {name!r}; {_OTHER}")
    if arguments.keys() != found.arguments.keys():
        raise RegistryError(BAD_REQUEST, f"the operation {name} takes {', '.join(found.arguments)}; {_OTHER}")
    for argument, kind in found.arguments.items():
        if not _is_of(kind, arguments[argument]):
            raise RegistryError(BAD_REQUEST, f"{argument} of the operation {name} is no {kind.__name__}")
    return functools.partial(_run, found.work, arguments)


def read_arguments(content: bytes) -> dict[str, object]:
    """Read the arguments of an operation, a JSON object; raises BAD_REQUEST."""
    if is_deeper(content, _ARGUMENTS_DEPTH):
        raise RegistryError(BAD_REQUEST, "the arguments are nested too deep")
    try:
        return load_object(content)
    except NotStrict as error:
        raise RegistryError(BAD_REQUEST, f"what is sent {error}") from error


def _is_of(kind: type, value: Any) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    # bool is an int for isinstance.
    return type(value) is kind


def _run(work: Callable[..., Iterator[Row]], arguments: Mapping[str, Any], parts: Parts) -> Iterator[Row]:
    return work(parts, **arguments)
