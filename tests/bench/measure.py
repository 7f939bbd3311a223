"""What a measurement is: samples, units, the rows of the table; and what `/proc` says of a process. Linux only."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
PAGES = Unit("pages/s", "ms/page", 1e3)
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


class Goal(NamedTuple):
    """How many times as good as something else Vex shall be, and the processor time per unit of work that it may use,
    as a part of that of the other; None where there is no such goal. `always` in every round, else as a median.
    """

    times: float | None = None
    cpu: float | None = None
    always: bool = False

    def reached(self, ratios: Sequence[float], cpu_ratios: Sequence[float]) -> list[bool]:
        """Tell it of both parts, as far as there are goals."""
        found = []
        if self.times is not None:
            found.append(bool(ratios) and (min if self.always else statistics.median)(ratios) >= self.times)
        if self.cpu is not None:
            found.append(bool(cpu_ratios) and statistics.median(cpu_ratios) <= self.cpu)
        return found


class Other(NamedTuple):
    """Another way to do the work of a row on the same registry, and its name."""

    name: str
    measure: Callable[[Registry], Sample]


class Row(NamedTuple):
    """A row of the table.

    `pair` names the registries that are compared, with a peer and with another build of Vex. Where there is `other`, it
    takes the place of the peer.
    """

    name: str
    title: str
    unit: Unit
    prepare: Callable[[Registry], None]
    measure: Callable[[Registry], Sample]
    goal: Goal = Goal()
    baseline_goal: Goal = Goal()
    lower_is_better: bool = False
    pair: str = "plain"
    other: Other | None = None


@dataclass
class Side:
    """The samples of one registry, round by round; `failure` says why there are no more, or none. Without a name there
    is no such registry.
    """

    name: str = ""
    failure: str = ""
    samples: list[Sample] = field(default_factory=list)


class Result(NamedTuple):
    """What a row found of Vex, of what it is compared with, and of the other build of Vex."""

    row: Row
    vex: Side
    second: Side
    baseline: Side

    @property
    def failures(self) -> list[str]:
        """What went wrong, each with a name."""
        return [f"{side.name} {side.failure}" for side in (self.vex, self.second, self.baseline) if side.failure]

    def ratios(self, side: Side) -> list[float]:
        """How many times as good as this side Vex was, in each round."""
        pairs = [(one.value, two.value) for one, two in zip(self.vex.samples, side.samples)]
        return [two / one if self.row.lower_is_better else one / two for one, two in pairs]

    def cpu_ratios(self, side: Side) -> list[float]:
        """How much processor time Vex used, as a part of that of this side, in each round."""
        pairs = [(one.cpu, two.cpu) for one, two in zip(self.vex.samples, side.samples)]
        return [one / two for one, two in pairs if one is not None and two]

    def verdict(self) -> str:
        """Tell whether the goals are reached: `yes`, `no`, `unknown` where the other failed, or ``."""
        if self.vex.failure:
            return "no"
        checks, unknown = [], False
        for side, goal in ((self.second, self.row.goal), (self.baseline, self.row.baseline_goal)):
            if side.failure:
                unknown = unknown or goal != Goal()
            elif side.name:
                checks += goal.reached(self.ratios(side), self.cpu_ratios(side))
        if not all(checks):
            return "no"
        return "unknown" if unknown else "yes" if checks else ""


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


def thread_seconds(pid: int) -> dict[str, float]:
    """Return the processor time of each thread of a process, far more precisely than `cpu_seconds`."""
    found = {}
    for path in Path(f"/proc/{pid}/task").iterdir():
        # Threads come and go.
        with contextlib.suppress(OSError):
            found[path.name] = int((path / "schedstat").read_text().split()[0]) / 1e9
    return found


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
