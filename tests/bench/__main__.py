"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, TextIO

from tests.bench import profiler, report
from tests.bench.clients import Clients, missing_programs
from tests.bench.content import Base
from tests.bench.measure import MIB, REQUESTS, Figure, Result, Row, Sample, WrongAnswer, awake, wait_until
from tests.bench.reads import Reads
from tests.bench.registries import CachedVex, DebianRegistry, OtherRegistry, Registry, Vex, build_vex, make_tls
from tests.bench.shape import LARGE, SMALL, SizedVex, Sizes, memory_figure, restart_figure, start_figures
from tests.bench.transfers import Transfers

_MEMORY_GOAL_MIB = 40
_PROFILE_SECONDS = 30


class Bench:
    """One run; everything is under `directory`, which is removed afterwards."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self._directory = directory
        self._options = options
        self.sleepy: bool = options.sleepy
        self._program = build_vex(directory)
        self._runner = (
            [sys.executable, profiler.__file__, str(directory / "profile")] if options.profile else [sys.executable]
        )
        self._pairs: dict[str, list[Registry]] = {}
        clients = Clients(directory)
        reads = Reads(clients)
        transfers = Transfers(clients, reads, Base.at(directory), directory)
        rows = [*reads.rows(), *transfers.rows()]
        self.rows = [*rows, *Sizes(clients, directory).rows(), *map(_behind_nginx, filter(_is_cached, rows))]

    def run(self, rows: Sequence[Row]) -> list[Result]:
        """Measure the rows, the two registries of each in turns."""
        return [self._profile(row) if self._options.profile else self._measure(row) for row in rows]

    def figures(self) -> list[Figure]:
        """Measure what has no peer; at the end of a run, for its memory."""
        figures = list(start_figures(self._directory / "started", self._program))
        for number, registry in enumerate(self._pairs.get("plain", [])):
            figures.append(memory_figure(registry, None if number else _MEMORY_GOAL_MIB))
        for registry in self._pairs.get("size", [])[:1]:
            figures.append(memory_figure(registry, _MEMORY_GOAL_MIB))
            assert isinstance(registry, Vex)
            figures.append(restart_figure(registry))
        return figures

    def close(self) -> None:
        """End all registries."""
        for registry in [registry for pair in self._pairs.values() for registry in pair]:
            registry.stop()

    def names(self, pair: str) -> list[str]:
        """Return the names of the registries of a pair."""
        return [registry.name for registry in self._pairs[pair]]

    def _measure(self, row: Row) -> Result:
        result = Result(row, [], [])
        try:
            pair = self._pair(row.pair)
            for registry in pair:
                registry.prepare(row.prepare)
            for number in range(self._options.rounds):
                # Transfers never wait long enough to sleep, and lose more to another process on their processors.
                with awake() if row.unit is REQUESTS and not self.sleepy else contextlib.nullcontext():
                    for registry, samples in zip(pair, (result.first, result.second)):
                        samples.append(row.measure(registry))
                found = ", ".join(
                    _found(registry, row, samples[-1]) for registry, samples in zip(pair, (result.first, result.second))
                )
                _say(f"{row.name}: round {number + 1} of {self._options.rounds}: {found}")
        except (WrongAnswer, OSError) as error:
            _say(f"{row.name}: failed: {error}")
            return result._replace(failure=str(error))
        return result

    def _profile(self, row: Row) -> Result:
        registry = self._pair(row.pair)[0]
        registry.prepare(row.prepare)
        found = self._directory / "profile"
        found.unlink(missing_ok=True)
        _write_line(registry)
        sample = row.measure(registry)
        _write_line(registry)
        wait_until(found.exists, _PROFILE_SECONDS, "the profile")
        print(f"\n{row.title}: {_found(registry, row, sample)}\n{found.read_text()}", flush=True)
        return Result(row, [sample], [])

    def _pair(self, name: str) -> list[Registry]:
        """Start the registries of a pair, those that are there already excepted."""
        if name not in self._pairs:
            self._pairs[name] = []
            for start in self._starts(name)[: 1 if self._options.profile else 2]:
                self._pairs[name].append(start())
        return self._pairs[name]

    def _starts(self, name: str) -> list[Callable[[], Registry]]:
        if name == "size":
            large, small = self._directory / "large", self._directory / "small"
            return [
                lambda: SizedVex(large, self._program, LARGE, self._runner),
                lambda: SizedVex(small, self._program, SMALL),
            ]
        tls = make_tls(self._directory) if name.endswith("tls") else None
        peer = "docker-registry"
        first, second = self._directory / f"vex-{name}", self._directory / f"peer-{name}"
        if name.startswith("nginx"):
            return [
                lambda: CachedVex("Vex behind nginx", first, self._program, tls, self._runner),
                lambda: Vex("Vex alone", second, self._program, tls),
            ]
        starts: list[Callable[[], Registry]] = [lambda: Vex("Vex", first, self._program, tls, self._runner)]
        if not self._options.peer:
            return [*starts, lambda: DebianRegistry(peer, second, tls)]
        if tls:
            raise WrongAnswer("only docker-registry is compared over TLS")
        return [*starts, lambda: OtherRegistry("peer", second, self._options.peer)]


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
    rows = [row for row in bench.rows if any(fnmatch.fnmatch(row.name, pattern) for pattern in options.only.split(","))]
    results = bench.run(rows)
    figures = [] if options.profile else bench.figures()
    if not options.profile:
        _print(bench, results, figures, sys.stdout)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, figures), indent=1) + "\n")
    return 1 if any(result.failure for result in results) else 0


def _print(bench: Bench, results: Sequence[Result], figures: Sequence[Figure], out: TextIO) -> None:
    print(report.machine() + ("" if bench.sleepy else ", processors kept awake for small requests"), file=out)
    for pair in dict.fromkeys(result.row.pair for result in results):
        of_pair = [result for result in results if result.row.pair == pair]
        first, second = [*bench.names(pair), "", ""][:2]
        print(f"\n{report.result_table(of_pair, first, second)}", file=out)
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
        help="a peer instead of docker-registry; {port} is its port on 127.0.0.1, {data} its directory",
    )
    parser.add_argument("--rounds", metavar="NUMBER", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--only", metavar="NAMES", default="*", help="only these rows; patterns such as manifest-*, separated by commas"
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
        name=f"nginx-{row.name}", goal=None, cpu_goal=None, pair="nginx-tls" if row.pair == "tls" else "nginx"
    )


def _found(registry: Registry, row: Row, sample: Sample) -> str:
    return (
        f"{registry.name} {report.number(sample.value)} {row.unit.value}, {registry.resident_bytes() // MIB} MiB"
        " resident"
    )


def _write_line(registry: Registry) -> None:
    assert registry.process.stdin is not None
    registry.process.stdin.write("\n")
    registry.process.stdin.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
