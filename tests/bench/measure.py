"""What a measurement is: samples, units, the rows of the table; and what `/proc` says of a process. Linux only."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    from tests.bench.registries import Registry

MIB = 1024 * 1024
_TICKS = os.sysconf("SC_CLK_TCK")


class WrongAnswer(Exception):
    """A registry answered something else than what the benchmark stored there, or refused."""


class Unit(NamedTuple):
    """How results are shown: the label of the value; processor seconds per unit of work are multiplied by
    `cpu_factor`.
    """

    value: str
    cpu: str
    cpu_factor: float


REQUESTS = Unit("requests/s", "us/request", 1e6)
BYTES = Unit("MiB/s", "s/GiB", 1024)
IMAGES = Unit("images/s", "ms/image", 1e3)
LATENCY = Unit("ms", "", 1)


class Sample(NamedTuple):
    """One measurement of one registry; `cpu` is in processor seconds of the server per unit of work, None where that is
    not measured.
    """

    value: float
    cpu: float | None = None


class Work(NamedTuple):
    """What a load did: how much (requests, MiB or images), and in how many seconds."""

    amount: float
    seconds: float


class Row(NamedTuple):
    """A row of the table.

    `pair` names the two registries that are compared. `goal` is how many times as good as the second the first shall
    be, and `cpu_goal` the processor time per unit of work that it may use, as a part of that of the second; None where
    there is no such goal.
    """

    name: str
    title: str
    unit: Unit
    prepare: Callable[[Registry], None]
    measure: Callable[[Registry], Sample]
    goal: float | None = None
    cpu_goal: float | None = None
    lower_is_better: bool = False
    pair: str = "plain"


class Result(NamedTuple):
    """The samples of a row, round by round, of the first and the second registry; `failure` says why there are no
    more.
    """

    row: Row
    first: list[Sample]
    second: list[Sample]
    failure: str = ""

    def ratios(self) -> list[float]:
        """How many times as good as the second the first was, in each round."""
        pairs = [(one.value, two.value) for one, two in zip(self.first, self.second)]
        return [two / one if self.row.lower_is_better else one / two for one, two in pairs]

    def cpu_ratios(self) -> list[float]:
        """How much processor time the first used, as a part of that of the second, in each round."""
        return [one.cpu / two.cpu for one, two in zip(self.first, self.second) if one.cpu is not None and two.cpu]

    def verdict(self) -> str:
        """Tell whether the medians reach the goals: `yes`, `no` or ``."""
        if self.failure:
            return "no"
        checks = []
        if self.row.goal is not None and self.second:
            checks.append(statistics.median(self.ratios()) >= self.row.goal)
        if self.row.cpu_goal is not None and self.cpu_ratios():
            checks.append(statistics.median(self.cpu_ratios()) <= self.row.cpu_goal)
        return ("yes" if all(checks) else "no") if checks else ""


class Figure(NamedTuple):
    """A result without a peer; `reached` is None where there is no goal."""

    title: str
    values: Sequence[float]
    unit: str
    goal: str = ""
    reached: bool | None = None


def timed(registry: Registry, load: Callable[[], Work]) -> Sample:
    """Run a load and measure what it costs the registry."""
    before = registry.cpu_seconds()
    work = load()
    if not work.amount:
        raise WrongAnswer(f"{registry.name} did nothing in {work.seconds:.0f} s")
    return Sample(work.amount / work.seconds, (registry.cpu_seconds() - before) / work.amount)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, all its threads, and its children, those that have ended included."""
    # The name in parentheses may hold spaces: fields are counted behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(field) for field in fields[11:15]) / _TICKS
    return own + sum(cpu_seconds(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        # Threads come and go.
        with contextlib.suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return found


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keep every processor from sleeping during a block, with a process each that runs only where nothing else wants
    to.

    To wake a virtual processor costs its host more time than a small request costs the server, and how much depends on
    the host.
    """
    spin = (
        "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
        "while os.getppid() == {}: sum(range(100_000))"
    )
    spinners = [subprocess.Popen([sys.executable, "-c", spin.format(os.getpid())]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask again and again until it is so; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took more than {seconds:.0f} s")
        time.sleep(0.01)
