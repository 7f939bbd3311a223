"""Counters, gauges and histograms, and their text: the Prometheus text exposition format, version 0.0.4.

What is counted all the time (`Tally`, `Buckets`) is an object to hold on to: counting is one method call under that
object's lock, and exact whatever threads do. What is only looked up when somebody asks is a collector: a function that
returns samples.

The number of series is bounded: each label is declared with its values, and any other value is counted under "other".
Which metrics there are is not here.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import logging
import math
import os
import re
import resource
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Callable, Generic, NamedTuple, TypeVar

_log = logging.getLogger("vex")

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
OTHER = "other"
# Seconds; those of Prometheus's own clients, and two more for the transfer of large blobs.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPED_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_ESCAPED_LABEL = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
# Whole numbers up to here are exact as floats, and are written without an exponent.
_EXACT = 2**53
_NO_LABELS: Mapping[str, str] = MappingProxyType({})

Labels = Mapping[str, Iterable[str]]


class Sample(NamedTuple):
    """A value that a collector found; all samples of a name have the same kind, help and label names."""

    name: str
    kind: str
    help: str
    value: float
    labels: Mapping[str, str] = _NO_LABELS


Collector = Callable[[], Iterable[Sample]]


class _Line(NamedTuple):
    suffix: str
    labels: Mapping[str, str]
    value: float


class Tally:
    """One series of a counter or a gauge; any thread may use it."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: float = 0

    def add(self, amount: float = 1) -> None:
        """Add an amount; a negative one only to a gauge."""
        with self._lock:
            self._value += amount

    def set(self, value: float) -> None:
        """Replace the value of a gauge."""
        with self._lock:
            self._value = value

    @property
    def value(self) -> float:
        """The value now."""
        with self._lock:
            return self._value

    def lines(self, labels: Mapping[str, str]) -> Iterator[_Line]:
        """Give the line of the text format."""
        yield _Line("", labels, self.value)


class Counts(NamedTuple):
    """How many values a series of a histogram has counted itself, and how many its parts have."""

    own: int
    in_parts: int


class Buckets:
    """One series of a histogram, the bounds of its buckets inclusive, ascending and finite; any thread may use it."""

    __slots__ = ("_bounds", "_counts", "_lock", "_parts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._lock = threading.Lock()
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0
        self._parts: list[Buckets] = []

    def part(self) -> Buckets:
        """Make a part of this series: what it counts is in the lines of the whole, and can be told from the rest."""
        made = Buckets(self._bounds)
        with self._lock:
            self._parts.append(made)
        return made

    def counts(self) -> Counts:
        """Tell how many values were counted."""
        with self._lock:
            own, parts = sum(self._counts), list(self._parts)
        return Counts(own, sum(sum(part.counts()) for part in parts))

    def observe(self, value: float) -> None:
        """Count a value into the first bucket whose bound is not below it."""
        index = bisect.bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self._sum += value

    def lines(self, labels: Mapping[str, str]) -> Iterator[_Line]:
        """Give the lines of the text format: cumulative buckets, sum and count, which agree with one another."""
        counts, total = self._snapshot()
        cumulative = list(itertools.accumulate(counts))
        for bound, count in zip((*self._bounds, math.inf), cumulative):
            yield _Line("_bucket", {**labels, "le": _number(bound)}, count)
        yield _Line("_sum", labels, total)
        yield _Line("_count", labels, cumulative[-1])

    def _snapshot(self) -> tuple[list[int], float]:
        with self._lock:
            counts, total, parts = list(self._counts), self._sum, list(self._parts)
        for part in parts:
            more, seconds = part._snapshot()
            counts, total = [one + other for one, other in zip(counts, more)], total + seconds
        return counts, total


S = TypeVar("S", Tally, Buckets)


class Family(Generic[S]):
    """All series of one metric: called with the values of its labels, in their order, it returns the series."""

    def __init__(self, name: str, kind: str, text: str, labels: Labels, make: Callable[[], S]) -> None:
        self.name = name
        self.kind = kind
        self.help = text
        self._labels = {label: frozenset(values) for label, values in labels.items()}
        self._make: Callable[[], S] = make
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], S] = {}

    def __call__(self, *values: str) -> S:
        """Find or make the series; a value that was not declared is replaced by "other"."""
        found = self._series.get(values)
        return found if found is not None else self._declared(values)

    def _declared(self, values: tuple[str, ...]) -> S:
        if len(values) != len(self._labels):
            raise ValueError(f"{self.name} has the labels {', '.join(self._labels)}")
        declared = tuple(value if value in allowed else OTHER for value, allowed in zip(values, self._labels.values()))
        with self._lock:
            if declared not in self._series:
                self._series[declared] = self._make()
            return self._series[declared]

    def series(self) -> list[tuple[tuple[str, ...], S]]:
        """Return all series with the values of their labels, in the order of those."""
        with self._lock:
            return sorted(self._series.items(), key=lambda item: item[0])

    def lines(self) -> Iterator[_Line]:
        """Give the lines of all series, in the order of their labels."""
        for values, one in self.series():
            yield from one.lines(dict(zip(self._labels, values)))


class Metrics:
    """All metrics, each name once; rendered in the order in which they were made, then those of collectors."""

    def __init__(self) -> None:
        self._families: list[Family[Tally] | Family[Buckets]] = []
        self._names: set[str] = set()
        self._collectors: list[Collector] = []

    def counter(self, name: str, text: str) -> Tally:
        """Make a counter without labels; its name should end in `_total`."""
        return self.labelled_counter(name, text, {})()

    def labelled_counter(self, name: str, text: str, labels: Labels) -> Family[Tally]:
        """Make a counter with labels, each with the values that it can have."""
        return self._values(name, COUNTER, text, labels)

    def gauge(self, name: str, text: str) -> Tally:
        """Make a gauge without labels."""
        return self.labelled_gauge(name, text, {})()

    def labelled_gauge(self, name: str, text: str, labels: Labels) -> Family[Tally]:
        """Make a gauge with labels, each with the values that it can have."""
        return self._values(name, GAUGE, text, labels)

    def histogram(
        self, name: str, text: str, labels: Labels = _NO_LABELS, bounds: Sequence[float] = DURATIONS
    ) -> Family[Buckets]:
        """Make a histogram; the bounds of its buckets are inclusive, ascending and finite, and +Inf is added."""
        self._reserve(name, f"{name}_bucket", f"{name}_sum", f"{name}_count")
        _check_names(name, [*labels])
        if "le" in labels or not bounds or not all(map(math.isfinite, bounds)) or sorted(set(bounds)) != list(bounds):
            raise ValueError(f"{name}: a histogram needs ascending, finite bounds, and has no label le of its own")
        family = Family(name, HISTOGRAM, text, labels, lambda: Buckets(tuple(bounds)))
        self._families.append(family)
        return family

    def hold(self, name: str, text: str, buckets: Buckets) -> None:
        """Take in a histogram without labels that is counted elsewhere."""
        self._reserve(name, f"{name}_bucket", f"{name}_sum", f"{name}_count")
        family = Family(name, HISTOGRAM, text, {}, lambda: buckets)
        family()
        self._families.append(family)

    def collect(self, collector: Collector) -> None:
        """Ask a function for samples whenever the metrics are rendered; when it fails, its samples are missing then."""
        self._collectors.append(collector)

    def render(self) -> str:
        """Write everything in the text format."""
        blocks = [_block(family.name, family.kind, family.help, family.lines()) for family in self._families]
        names = set(self._names)
        for collector in self._collectors:
            blocks += _collected(collector, names)
        return "".join(blocks)

    def _values(self, name: str, kind: str, text: str, labels: Labels) -> Family[Tally]:
        _check_names(name, [*labels])
        self._reserve(name)
        family = Family(name, kind, text, labels, Tally)
        self._families.append(family)
        return family

    def _reserve(self, *names: str) -> None:
        taken = self._names.intersection(names)
        if taken:
            raise ValueError(f"there is already a metric {taken.pop()}")
        self._names.update(names)


def _check_names(name: str, labels: Iterable[str]) -> None:
    if not _NAME.fullmatch(name) or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{name!r} or one of its labels is not a name in the text format")


def _collected(collector: Collector, names: set[str]) -> list[str]:
    # The other metrics are needed most when something fails.
    try:
        return _sample_blocks(collector(), names)
    except Exception:
        _log.exception("a collector of metrics failed")
        return []


def _sample_blocks(samples: Iterable[Sample], names: set[str]) -> list[str]:
    # The format wants all lines of a metric in one group.
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        _check_names(sample.name, sample.labels)
        if sample.name in names:
            raise ValueError(f"there is already a metric {sample.name}")
        groups.setdefault(sample.name, []).append(sample)
    names.update(groups)
    return [
        _block(name, group[0].kind, group[0].help, (_Line("", one.labels, one.value) for one in group))
        for name, group in groups.items()
    ]


def _block(name: str, kind: str, text: str, lines: Iterable[_Line]) -> str:
    head = f"# HELP {name} {text.translate(_ESCAPED_HELP)}\n# TYPE {name} {kind}\n"
    return head + "".join(f"{name}{line.suffix}{_braces(line.labels)} {_number(line.value)}\n" for line in lines)


def _braces(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{value.translate(_ESCAPED_LABEL)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT) else repr(value)


@functools.lru_cache(maxsize=1)
def boot_time() -> float:
    """Tell when this machine was started, in seconds since 1970: the same whenever it is asked.

    /proc/stat has it too, but systemd's ProcSubset=pid hides that.
    """
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def process_metrics(proc: Path = Path("/proc"), boot: Callable[[], float] = boot_time) -> Iterator[tuple[str, float]]:
    """Measure what Prometheus's clients tell about a process, under their names; what this platform does not tell is
    left out.
    """
    yield "process_cpu_seconds_total", time.process_time()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield "process_max_fds", math.inf if limit == resource.RLIM_INFINITY else limit
    if (proc / "self" / "stat").exists():
        yield from _from_proc(proc, boot)


def _from_proc(proc: Path, boot: Callable[[], float]) -> Iterator[tuple[str, float]]:
    # proc(5): the name, in parentheses, may hold anything; state, the third field, comes behind the last parenthesis.
    fields = (proc / "self" / "stat").read_text(errors="replace").rpartition(")")[2].split()
    threads, started, virtual, resident = (int(fields[number - 3]) for number in (20, 22, 23, 24))
    # Listing the directory opens one more.
    open_files = len(os.listdir(proc / "self" / "fd")) - 1
    yield "process_open_fds", open_files
    yield "process_resident_memory_bytes", resident * resource.getpagesize()
    yield "process_virtual_memory_bytes", virtual
    yield "process_threads", threads
    start = boot() + started / os.sysconf("SC_CLK_TCK")
    yield "process_start_time_seconds", start
