"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple, Optional, TextIO

from tests.bench import profiler, report
from tests.bench.amounts import TINY, Amounts
from tests.bench.clients import Clients, missing_programs
from tests.bench.commands import Commands
from tests.bench.measure import (
    MIB,
    PAGES,
    REQUESTS,
    Figure,
    Goal,
    Result,
    Row,
    Sample,
    Side,
    WrongAnswer,
    awake,
    wait_until,
)
from tests.bench.one_port import FLAGS, OnePort
from tests.bench.pages import Pages
from tests.bench.reads import Reads
from tests.bench.registries import (
    CachedVex,
    DebianRegistry,
    OtherRegistry,
    Registry,
    Tls,
    Vex,
    build_vex,
    make_tls,
)
from tests.bench.shape import SizedVex, Sizes, idle, memory_figure, restart_figure, start_figures
from tests.bench.transfers import Transfers

# The name of a registry, and what starts it; None where there is none.
Start = tuple[str, Optional[Callable[[], Registry]]]
_MEMORY_GOAL_MIB = 40
_PROFILE_SECONDS = 30


class Contender(NamedTuple):
    """A registry that rows are measured on, or why it is not there; without a name nobody wants it."""

    name: str = ""
    registry: Registry | None = None
    failure: str = ""


class Bench:
    """One run; everything is under `directory`, which is removed afterwards."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self._directory = directory
        self._options = options
        self._amounts = TINY if options.tiny else Amounts(large_repositories=options.repositories)
        self.sleepy: bool = options.sleepy or options.tiny
        self._program = build_vex(directory)
        self._runner = (
            [sys.executable, profiler.__file__, str(directory / "profile")] if options.profile else [sys.executable]
        )
        self._contenders: dict[str, list[Contender]] = {}
        amounts, clients = self._amounts, Clients(directory)
        reads = Reads(clients, amounts)
        rows = [*reads.rows(), *Transfers(clients, reads, amounts, directory).rows()]
        behind_nginx = map(_behind_nginx, filter(_is_cached, rows))
        rows += OnePort(clients, reads, amounts).rows()
        rows += Pages(clients, amounts).rows()
        rows += Commands(clients, amounts, directory).rows()
        self.rows = [*rows, *Sizes(clients, amounts, directory).rows(), *behind_nginx]

    def run(self, rows: Sequence[Row]) -> list[Result]:
        """Measure the rows, the registries of each in turns."""
        return [self._profile(row) if self._options.profile else self._measure(row) for row in rows]

    def figures(self) -> list[Figure]:
        """Measure what has no peer; at the end of a run, for its memory."""
        figures: list[Figure] = []
        if self.wanted("start"):
            figures += start_figures(self._directory / "started", self._program, self._amounts.starts)
        if self.wanted("memory"):
            figures += self._memory_figures()
        for contender in self._contenders.get("size", [])[:1]:
            assert isinstance(contender.registry, Vex)
            figures.append(memory_figure(contender.registry, "after the run", _MEMORY_GOAL_MIB))
            figures.append(restart_figure(contender.registry))
        return figures

    def wanted(self, name: str) -> bool:
        """Tell whether a row or a figure of this name was asked for."""
        return any(fnmatch.fnmatch(name, pattern) for pattern in self._options.only.split(","))

    def _memory_figures(self) -> Iterator[Figure]:
        """Tell what registries keep in memory after the run, and with connections that do nothing."""
        yield from self._memory("after the run")
        with contextlib.ExitStack() as stack:
            for contender in self._contenders.get("plain", []):
                if contender.registry:
                    stack.enter_context(idle(contender.registry, self._amounts.idle_connections))
            yield from self._memory(f"with {self._amounts.idle_connections} idle connections")

    def close(self) -> None:
        """End all registries."""
        for contender in [contender for contenders in self._contenders.values() for contender in contenders]:
            if contender.registry:
                contender.registry.stop()

    def _memory(self, when: str) -> Iterator[Figure]:
        """Tell it of all that the plain rows were measured on; Vex shall need no more than the other build."""
        registries = [contender.registry for contender in self._contenders.get("plain", [])]
        baseline = registries[2] if len(registries) > 2 else None
        for registry in filter(None, registries):
            goal = baseline.resident_bytes() / MIB if baseline else _MEMORY_GOAL_MIB
            yield memory_figure(registry, when, goal if registry is registries[0] else None)

    def _measure(self, row: Row) -> Result:
        vex, peer, baseline = self._compared(row.pair)
        works = [(vex, row.measure), (peer, row.measure), (baseline, row.measure)]
        if row.other:
            works[1] = (Contender(row.other.name, vex.registry, vex.failure), row.other.measure)
        sides = [Side(contender.name, contender.failure) for contender, _ in works]
        for contender, side in zip((vex, peer, baseline), sides):
            if contender.registry and not side.failure:
                _try(row, side, partial(contender.registry.prepare, row.prepare))
        for number in range(self._options.rounds):
            # Transfers never wait long enough to sleep, and lose more to another process on their processors.
            with awake() if row.unit in (REQUESTS, PAGES) and not self.sleepy else contextlib.nullcontext():
                for (contender, measure), side in zip(works, sides):
                    if contender.registry and not side.failure and not sides[0].failure:
                        _try(row, side, partial(_add_sample, side, measure, contender.registry))
            found = ", ".join(
                _found(contender.registry, row, side)
                for (contender, _), side in zip(works, sides)
                if contender.registry and not side.failure
            )
            if sides[0].failure:
                break
            _say(f"{row.name}: round {number + 1} of {self._options.rounds}: {found}")
        return Result(row, *sides)

    def _profile(self, row: Row) -> Result:
        registry = self._compared(row.pair)[0].registry
        assert registry is not None
        registry.prepare(row.prepare)
        found = self._directory / "profile"
        found.unlink(missing_ok=True)
        side = Side("Vex")
        _write_line(registry)
        _add_sample(side, row.measure, registry)
        _write_line(registry)
        wait_until(found.exists, _PROFILE_SECONDS, "the profile")
        print(f"\n{row.title}: {_found(registry, row, side)}\n{found.read_text()}", flush=True)
        return Result(row, side, Side(), Side())

    def _compared(self, name: str) -> list[Contender]:
        """Start the registries of a pair, those that are there already excepted: Vex, its peer, and another build."""
        if name not in self._contenders:
            found = self._contenders[name] = []
            for title, start in self._starts(name)[: 1 if self._options.profile else 3]:
                found.append(_started(title, start))
            found += [Contender()] * (3 - len(found))
        return self._contenders[name]

    def _starts(self, name: str) -> list[Start]:
        own, other = self._directory / f"vex-{name}", self._directory / f"peer-{name}"
        if name == "size":
            large, small = self._amounts.large_repositories, self._amounts.small_repositories
            return [
                (f"{large:,} repositories", lambda: SizedVex(own, self._program, large, self._runner)),
                (f"{small:,} repositories", lambda: SizedVex(other, self._program, small)),
            ]
        tls = make_tls(self._directory) if name.endswith("tls") else None
        if name.startswith("nginx"):
            return [
                ("Vex behind nginx", lambda: CachedVex("Vex behind nginx", own, self._program, tls, self._runner)),
                ("Vex alone", lambda: Vex("Vex alone", other, self._program, tls)),
            ]
        flags = FLAGS if name == "one-port" else ()
        starts: list[Start] = [
            ("Vex", lambda: Vex("Vex", own, self._program, tls, self._runner, flags)),
            self._peer(name, other, tls),
        ]
        if self._options.baseline:
            baseline, program = self._directory / f"baseline-{name}", self._options.baseline.resolve()
            starts.append(("baseline", lambda: Vex("baseline", baseline, program, tls, flags=flags)))
        return starts

    def _peer(self, pair: str, directory: Path, tls: Tls | None) -> Start:
        """Say which peer a pair has, and how to start it; over TLS it is docker-registry always."""
        if pair not in ("plain", "tls"):
            return "", None
        if self._options.peer and not tls:
            return "peer", lambda: OtherRegistry("peer", directory, self._options.peer)
        return "docker-registry", lambda: DebianRegistry("docker-registry", directory, tls)


def main() -> int:
    """Run the benchmark; returns 1 when something was answered wrongly."""
    options = _parser().parse_args()
    missing = missing_programs()
    if missing:
        print(f"bench: install the Debian packages {', '.join(missing)}", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="vex-bench-", dir=options.data_dir))
    try:
        with contextlib.closing(Bench(directory, options)) as bench:
            return _run(bench, options)
    finally:
        shutil.rmtree(directory)


def _run(bench: Bench, options: argparse.Namespace) -> int:
    results = bench.run([row for row in bench.rows if bench.wanted(row.name)])
    figures = [] if options.profile else bench.figures()
    if not options.profile:
        _print(bench, results, figures, sys.stdout)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, figures), indent=1) + "\n")
    return 1 if any(result.failures for result in results) else 0


def _print(bench: Bench, results: Sequence[Result], figures: Sequence[Figure], out: TextIO) -> None:
    print(report.machine() + ("" if bench.sleepy else ", processors kept awake for small requests"), file=out)
    names = [tuple(side.name for side in (result.vex, result.second, result.baseline)) for result in results]
    for sides in dict.fromkeys(names):
        print(f"\n{report.result_table([result for result, of in zip(results, names) if of == sides])}", file=out)
    for result in results:
        for failure in result.failures:
            print(f"\n{result.row.title}: {failure}", file=out)
    if figures:
        print(f"\n{report.figure_table(figures)}", file=out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bench", description="Compare Vex with another registry, in turns, on this machine."
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="where both keep their data while it runs; default: the directory for temporary files",
    )
    parser.add_argument(
        "--peer",
        metavar="COMMAND",
        help="a peer instead of docker-registry; {port} is its port on 127.0.0.1, {write_port} another where it is"
        " written, {data} its directory, {user} and {password} who may write",
    )
    parser.add_argument("--baseline", metavar="PYZ", type=Path, help="another build of Vex, to put beside this one")
    parser.add_argument(
        "--repositories",
        metavar="NUMBER",
        type=int,
        default=Amounts().large_repositories,
        help="of the registry that holds much, each with 10 tags and 5 blobs; default: 100000",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a little of everything, to see that all rows work; times mean nothing then"
    )
    parser.add_argument("--rounds", metavar="NUMBER", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        default="*",
        help="only these rows, and of start and memory; patterns such as manifest-*, separated by commas",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured there")
    parser.add_argument(
        "--sleepy",
        action="store_true",
        help="let processors sleep between small requests; what it takes to wake them counts then",
    )
    parser.add_argument(
        "--profile", action="store_true", help="show where Vex's processor time goes, instead of a comparison"
    )
    return parser


def _is_cached(row: Row) -> bool:
    return fnmatch.fnmatch(row.name, "manifest-get-*") or row.name.startswith(("pull-", "skopeo-pull"))


def _behind_nginx(row: Row) -> Row:
    """Make the same row for one Vex behind a cache and another without."""
    return row._replace(
        name=f"nginx-{row.name}",
        goal=Goal(),
        baseline_goal=Goal(),
        pair="nginx-tls" if row.pair == "tls" else "nginx",
    )


def _started(name: str, start: Callable[[], Registry] | None) -> Contender:
    if start is None:
        return Contender()
    try:
        return Contender(name, start())
    except (WrongAnswer, OSError) as error:
        _say(f"{name} did not start: {error}")
        return Contender(name, None, f"did not start: {error}")


def _try(row: Row, side: Side, work: Callable[[], None]) -> None:
    """Do something for a side, and note it when it fails."""
    try:
        work()
    except (WrongAnswer, OSError) as error:
        side.failure = f"failed: {error}"
        _say(f"{row.name}: {side.name} {side.failure}")


def _add_sample(side: Side, measure: Callable[[Registry], Sample], registry: Registry) -> None:
    side.samples.append(measure(registry))


def _found(registry: Registry, row: Row, side: Side) -> str:
    value = report.number(side.samples[-1].value)
    return f"{side.name} {value} {row.unit.value}, {registry.resident_bytes() // MIB} MiB resident"


def _write_line(registry: Registry) -> None:
    assert registry.process.stdin is not None
    registry.process.stdin.write("\n")
    registry.process.stdin.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
