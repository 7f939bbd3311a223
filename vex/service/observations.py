"""What Vex measures about itself: counts what happens, and looks up what is there when somebody asks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vex import VERSION
from vex.errors import Kind
from vex.http.certificates import Certificates
from vex.http.message import NOSNIFF, Response
from vex.http.server import Listener
from vex.metrics import Buckets, Collector, Family, Metrics, Sample, Tally, process_metrics
from vex.registry.housekeeping import Housekeeping
from vex.registry.quotas import fullest
from vex.registry.registry import Registry
from vex.registry.storage import Storage
from vex.service.measures import BY_NAME, METHODS, REFUSALS
from vex.storage.blobs import UNKNOWN_BYTES

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_NO_LABELS: Mapping[str, str] = {}


class Observations:
    """The metrics of `measures.py`."""

    def __init__(self, storage: Storage, registry: Registry, certificates: Certificates) -> None:
        self._registry = registry
        self._uploads = storage.uploads
        self._files = storage.files
        self._certificates = certificates
        self._metrics = Metrics()
        self._duration = self._histogram("vex_request_duration_seconds")
        self._durations: dict[tuple[str, str, str, int, bool], Buckets] = {}
        self._refused = self._counter("vex_requests_refused_total")
        self._panics = self._counter("vex_panic_total")()
        self._logins = self._counter("vex_logins_refused_total")()
        self._received = self._counter("vex_received_bytes_total")()
        self._sent = self._counter("vex_sent_bytes_total")()
        self._ended = self._counter("vex_connections_ended_total")
        self._turned_away = self._counter("vex_connections_refused_total")
        self._hold("vex_database_wait_seconds", storage.database.waits)
        self._hold("vex_database_commit_seconds", storage.database.commits)
        for collector in (
            self._moved,
            self._holdings,
            lambda: self._quotas(storage),
            self._disk,
            self._expiries,
            lambda: [sample(*reading) for reading in process_metrics()],
        ):
            self.collect(collector)

    def collect(self, collector: Collector) -> None:
        """Ask a function for samples whenever somebody asks for the metrics."""
        self._metrics.collect(collector)

    def watch(self, listeners: Sequence[Listener]) -> None:
        """Measure the connections of these listeners too."""
        self.collect(lambda: [one for listener in listeners for one in self._connections(listener)])

    def watch_steps(self, housekeeping: Housekeeping) -> None:
        """Tell when each step of housekeeping was done last."""
        name = "vex_housekeeping_success_timestamp_seconds"
        self.collect(
            lambda: [sample(name, seconds, {"step": step}) for step, seconds in housekeeping.succeeded.copy().items()]
        )

    def request_done(
        self, listener: str, method: str, op: str, status: int, seconds: float, received: int, sent: int, repeated: bool
    ) -> None:
        """Note a request that was answered, perhaps with an answer that was given before; sizes in bytes of bodies."""
        key = (listener, method, op, status, repeated)
        buckets = self._durations.get(key)
        if buckets is None:
            buckets = self._duration(listener, method, op, str(status))
            # Apart and yet in the same series: so what was answered again is known, and costs nothing to count.
            buckets = buckets.part() if repeated else buckets
            # Methods come from clients: only those that are known may stay in the table.
            if method in METHODS:
                self._durations[key] = buckets
        buckets.observe(seconds)
        if received:
            self._received.add(received)
        if sent:
            self._sent.add(sent)

    def login_refused(self) -> None:
        """Note a request with a wrong user name or password, or too many of those."""
        self._logins.add()

    def request_refused(self, listener: str, kind: Kind) -> None:
        """Note a request that was answered with an error; counted if it was malformed or past a limit."""
        reason = REFUSALS.get(kind)
        if reason:
            self._refused(listener, reason).add()

    def connection_ended(self, listener: str, reason: str) -> None:
        """Note a connection that the server ended."""
        self._ended(listener, reason).add()

    def connection_refused(self, listener: str) -> None:
        """Note a connection for which there was no thread."""
        self._turned_away(listener).add()

    def panic(self) -> None:
        """Note a request that failed in a way nobody foresaw."""
        self._panics.add()

    def response(self) -> Response:
        """Answer with all metrics."""
        return Response(200, [("Content-Type", _TEXT), NOSNIFF], self._metrics.render().encode())

    def _counter(self, name: str) -> Family[Tally]:
        measure = BY_NAME[name]
        return self._metrics.labelled_counter(name, measure.help, measure.labels)

    def _histogram(self, name: str) -> Family[Buckets]:
        measure = BY_NAME[name]
        return self._metrics.histogram(name, measure.help, measure.labels)

    def _hold(self, name: str, buckets: Buckets) -> None:
        self._metrics.hold(name, BY_NAME[name].help, buckets)

    def _connections(self, listener: Listener) -> Iterator[Sample]:
        labels = {"listener": listener.name}
        yield sample("vex_requests_in_flight", listener.requests_in_flight(), labels)
        yield sample("vex_connections_open", len(listener.connections), labels)
        yield sample("vex_connections_limit", listener.connections_limit, labels)
        waiting = listener.waiting()
        if waiting is not None:
            yield sample("vex_connections_waiting", waiting, labels)
        if listener.answers is not None:
            counts = [series.counts() for values, series in self._duration.series() if values[0] == listener.name]
            yield sample("vex_answer_cache_hits_total", sum(count.in_parts for count in counts), labels)
            yield sample("vex_answer_cache_misses_total", sum(count.own for count in counts), labels)

    def _moved(self) -> Iterator[Sample]:
        yield sample("vex_blobs_uploaded_total", self._registry.uploaded.value)
        yield sample("vex_blobs_uploaded_bytes_total", self._registry.uploaded_bytes.value)
        yield sample("vex_blobs_removed_total", self._files.removed.value)
        yield sample("vex_blobs_removed_bytes_total", self._files.removed_bytes.value)

    def _disk(self) -> Iterator[Sample]:
        yield sample("vex_disk_kept_bytes", self._uploads.limits.free_bytes)
        free = self._files.free_bytes()
        if free != UNKNOWN_BYTES:
            yield sample("vex_disk_free_bytes", free)

    def _holdings(self) -> Iterable[Sample]:
        totals = self._registry.totals()
        yield sample("vex_build_info", 1, {"version": VERSION, "python": sys.version.split(" ", 1)[0]})
        yield sample("vex_repositories", totals.repositories)
        yield sample("vex_tags", totals.tags)
        yield sample("vex_manifests", totals.manifests)
        yield sample("vex_blobs", totals.blobs)
        yield sample("vex_stored_bytes", totals.blob_bytes)
        yield sample("vex_damaged_blobs", totals.damaged_blobs)
        yield sample("vex_leases", totals.leases)
        yield sample("vex_uploads_open", len(self._uploads))

    def _quotas(self, storage: Storage) -> Iterator[Sample]:
        for name, used, allowed in fullest(storage.database, storage.policies):
            yield sample("vex_quota_used_bytes", used, {"repository": name})
            yield sample("vex_quota_allowed_bytes", allowed, {"repository": name})

    def _expiries(self) -> Iterator[Sample]:
        for listener, expiry in self._certificates.expiries().items():
            yield sample("vex_tls_certificate_expiry_timestamp_seconds", expiry, {"listener": listener})


def sample(name: str, value: float, labels: Mapping[str, str] = _NO_LABELS) -> Sample:
    """Make a sample of a metric of the table."""
    measure = BY_NAME[name]
    return Sample(name, measure.kind, measure.help, value, labels)
