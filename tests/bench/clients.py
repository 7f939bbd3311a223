"""The programs that make the load, from the side of the benchmark: wrk, hey, skopeo and our sender. Each checks what it
was answered.
"""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.measure import Work, WrongAnswer
from tests.bench.registries import ACCEPT, Registry
from tests.bench.sender import Job, Report
from tests.support.server import TOP

PACKAGES = {
    "wrk": "wrk",
    "hey": "hey",
    "skopeo": "skopeo",
    "docker-registry": "docker-registry",
    "openssl": "openssl",
    "nginx": "nginx-light",
}
# As many commit together where a registry does that; one at a time takes minutes.
_SHARING = 8
# wrk writes its figures for people; this writes them for us.
_WRK_SCRIPT = """\
local paths = {}
function init(args)
    for line in io.lines(args[1]) do paths[#paths + 1] = wrk.format("GET", line) end
end
local next = 0
function request()
    next = next % #paths + 1
    return paths[next]
end
function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format('\\n{"requests": %d, "microseconds": %d, "errors": %d}\\n',
        summary.requests, summary.duration, errors.connect + errors.read
        + errors.write + errors.status + errors.timeout))
end
"""
_WRK_ONE_PATH = _WRK_SCRIPT[_WRK_SCRIPT.index("function done") :]


class Clients:
    """The load; `directory` is for its files."""

    def __init__(self, directory: Path) -> None:
        self._script, self._one = directory / "wrk.lua", directory / "wrk-one.lua"
        self._script.write_text(_WRK_SCRIPT)
        self._one.write_text(_WRK_ONE_PATH)
        self._paths = directory / "paths"

    def get(
        self, registry: Registry, paths: Sequence[str], connections: int, seconds: int, authorization: str | None = None
    ) -> Work:
        """GET with wrk, one path or several in turn; a few with hey where there is no time.

        It is at the port for writes if there is an authorization, "" for none.
        """
        if not seconds:
            few = [
                self.hey(registry, "GET", path, connections, 0, authorization=authorization)[0] for path in paths[:3]
            ]
            return Work(sum(work.amount for work in few), sum(work.seconds for work in few))
        self._paths.write_text("\n".join(paths))
        several = len(paths) > 1
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "60s", "-H", f"Accept: {ACCEPT}"]
        command += ["-H", f"Authorization: {authorization}"] if authorization else []
        command += ["-s", str(self._script if several else self._one), _url(registry, paths[0], authorization)]
        command += ["--", str(self._paths)] if several else []
        found = json.loads(_output(command).splitlines()[-1])
        if found["errors"]:
            raise WrongAnswer(
                f"{registry.name}: GET {paths[0]}: {found['errors']} of {found['requests']} requests failed"
            )
        return Work(found["requests"], found["microseconds"] / 1e6)

    def hey(
        self,
        registry: Registry,
        method: str,
        path: str,
        connections: int,
        seconds: int,
        per_second: int = 0,
        authorization: str | None = None,
    ) -> tuple[Work, list[float]]:
        """Send requests with hey, at most so many a second in all, or one on each connection in no time; returns the
        seconds that each took, too.
        """
        command = ["hey", "-m", method, "-c", str(connections), "-cpus", "1", "-A", ACCEPT, "-o", "csv"]
        command += ["-z", f"{seconds}s"] if seconds else ["-n", str(connections)]
        command += ["-q", str(per_second / connections)] if per_second else []
        command += ["-H", f"Authorization: {authorization}"] if authorization else []
        command += [_url(registry, path, authorization)]
        rows = list(csv.DictReader(_output(command).splitlines()))
        failed = [row["status-code"] for row in rows if row["status-code"] != "200"]
        if failed:
            raise WrongAnswer(
                f"{registry.name}: {method} {path}: {len(failed)} of {len(rows)} requests failed: {failed[:5]}"
            )
        ended = max((float(row["offset"]) + float(row["response-time"]) for row in rows), default=seconds)
        return Work(len(rows), max(ended, seconds)), [float(row["response-time"]) for row in rows]

    def send(self, jobs: Sequence[Job]) -> tuple[Work, list[tuple[str, str]]]:
        """Do jobs of the sender at the same time; returns (path, digest) of what was pushed, too."""
        with _senders(jobs) as senders:
            reports = [sender.report() for sender in senders]
        seconds = max(report.ended for report in reports) - min(report.started for report in reports)
        return Work(sum(report.amount for report in reports), seconds), [
            pushed for report in reports for pushed in report.pushed
        ]

    def send_shared(self, job: Job) -> None:
        """Do a job whose work is numbered with several senders, each a part of the numbers."""
        bounds = [job.times * part // _SHARING for part in range(_SHARING + 1)]
        self.send([job._replace(first=begin, times=end - begin) for begin, end in zip(bounds, bounds[1:])])

    @contextlib.contextmanager
    def sending(self, jobs: Sequence[Job]) -> Iterator[list[tuple[str, str]]]:
        """Have jobs done again and again during a block; what was pushed is in the list at its end."""
        pushed: list[tuple[str, str]] = []
        with _senders([job._replace(times=0) for job in jobs]) as senders:
            yield pushed
            for sender in senders:
                sender.signal()
            for sender in senders:
                pushed += sender.report().pushed

    def skopeo_sync(self, registry: Registry, source: Registry, repositories: Sequence[str], name: str) -> Work:
        """Copy repositories with skopeo to below a name."""
        host, port = source.read
        images = "".join(f"    {repository}: []\n" for repository in repositories)
        self._paths.write_text(f'"{host}:{port}":\n  tls-verify: false\n  images:\n{images}')
        command = [
            "skopeo",
            "sync",
            "--insecure-policy",
            "--src",
            "yaml",
            "--dest",
            "docker",
            "--dest-tls-verify=false",
        ]
        command += ["--dest-creds", registry.user] if registry.user else []
        started = time.monotonic()
        _output([*command, str(self._paths), f"{registry.write[0]}:{registry.write[1]}/{name}"])
        return Work(1, time.monotonic() - started)

    def skopeo_copy(self, registry: Registry, source: str, destination: str) -> Work:
        """Copy an image with skopeo; `source` or `destination` is one of the registry."""
        command = [
            "skopeo",
            "copy",
            "--quiet",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ]
        if registry.user and destination.startswith("docker:"):
            command += ["--dest-creds", registry.user]
        started = time.monotonic()
        _output([*command, source, destination])
        return Work(1, time.monotonic() - started)


class Sender:
    """A process of the sender, from its preparation to its report."""

    def __init__(self, job: Job) -> None:
        command = [sys.executable, "-m", "tests.bench.sender", json.dumps(job._asdict())]
        self._process = subprocess.Popen(command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(self) -> None:
        """Wait for the end of its preparation; raises WrongAnswer."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise WrongAnswer("a sender could not begin")

    def signal(self) -> None:
        """Let it begin; the second time, let it end."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def report(self) -> Report:
        """Wait for its report; raises WrongAnswer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WrongAnswer("a sender failed")
        return Report(**json.loads(line))

    def close(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def _senders(jobs: Sequence[Job]) -> Iterator[list[Sender]]:
    """Run senders for a block; they begin together, once all are prepared."""
    senders = [Sender(job) for job in jobs]
    try:
        for sender in senders:
            sender.wait_until_ready()
        for sender in senders:
            sender.signal()
        yield senders
    finally:
        for sender in senders:
            sender.close()


def missing_programs() -> list[str]:
    """Return the Debian packages of programs that are needed and not here."""
    return [package for program, package in PACKAGES.items() if shutil.which(program) is None]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that this part of the values does not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _url(registry: Registry, path: str, authorization: str | None) -> str:
    return (registry.url if authorization is None else registry.write_url) + path


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongAnswer(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
