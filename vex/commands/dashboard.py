"""A Grafana dashboard of Vex's metrics, as JSON; what they mean is in `measures.py`."""

from __future__ import annotations

import json
from typing import Any

Queries = dict[str, str]  # by the legend of their lines

_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_SELECTED = '{instance=~"$instance"}'


def _sum(name: str, by: str) -> str:
    return f"sum by ({by}) ({name}{_SELECTED})"


def _rate(name: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}{_SELECTED}[$__rate_interval]))"


def _quantile(share: str, name: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{name}_bucket', f'le, {by}')})"


def _quantiles(name: str) -> Queries:
    return {
        f"{legend} of {{{{instance}}}}": _quantile(share, name, "instance")
        for legend, share in (("half", "0.5"), ("99 of 100", "0.99"))
    }


_HITS, _MISSES = _rate("vex_answer_cache_hits_total", "instance"), _rate("vex_answer_cache_misses_total", "instance")
_QUOTA_USED, _QUOTA_ALLOWED = (_sum(f"vex_quota_{name}_bytes", "instance, repository") for name in ("used", "allowed"))

# A row of panels each: title, unit, queries.
_ROWS: dict[str, tuple[tuple[str, str, Queries], ...]] = {
    "Requests": (
        ("Requests", "reqps", {"{{listener}}": _rate("vex_request_duration_seconds_count", "listener")}),
        (
            "Requests by operation",
            "reqps",
            {"{{method}} {{op}}": _rate("vex_request_duration_seconds_count", "method, op")},
        ),
        ("Requests by status code", "reqps", {"{{code}}": _rate("vex_request_duration_seconds_count", "code")}),
        ("Time to answer, 95 of 100 within", "s", {"{{op}}": _quantile("0.95", "vex_request_duration_seconds", "op")}),
        ("Requests in flight", "short", {"{{listener}}": _sum("vex_requests_in_flight", "listener")}),
        ("Answered from the cache", "percentunit", {"{{instance}}": f"{_HITS} / ({_HITS} + {_MISSES})"}),
    ),
    "Refusals": (
        ("Requests refused", "reqps", {"{{reason}}": _rate("vex_requests_refused_total", "reason")}),
        ("Logins refused", "reqps", {"{{instance}}": _rate("vex_logins_refused_total", "instance")}),
        ("Failures nobody foresaw", "reqps", {"{{instance}}": _rate("vex_panic_total", "instance")}),
    ),
    "Connections": (
        (
            "Connections",
            "short",
            {
                "{{listener}} open": _sum("vex_connections_open", "listener"),
                "{{listener}} waiting": _sum("vex_connections_waiting", "listener"),
                "{{listener}} limit": _sum("vex_connections_limit", "listener"),
            },
        ),
        (
            "Connections ended by the registry",
            "cps",
            {
                "{{reason}}": _rate("vex_connections_ended_total", "reason"),
                "no thread": _rate("vex_connections_refused_total", "instance"),
            },
        ),
        (
            "Bodies",
            "Bps",
            {
                "received": _rate("vex_received_bytes_total", "instance"),
                "sent": _rate("vex_sent_bytes_total", "instance"),
            },
        ),
    ),
    "Database and disk": (
        ("Waiting for the database", "s", _quantiles("vex_database_wait_seconds")),
        ("Commits", "s", _quantiles("vex_database_commit_seconds")),
        (
            "Disk",
            "bytes",
            {name: _sum(f"vex_{name}_bytes", "instance") for name in ("disk_free", "disk_kept", "stored")},
        ),
    ),
    "What is there": (
        (
            "Blobs",
            "cps",
            {
                "uploaded": _rate("vex_blobs_uploaded_total", "instance"),
                "removed": _rate("vex_blobs_removed_total", "instance"),
            },
        ),
        (
            "Bytes of blobs",
            "Bps",
            {name: _rate(f"vex_blobs_{name}_bytes_total", "instance") for name in ("uploaded", "removed")},
        ),
        (
            "Holdings",
            "short",
            {name: _sum(f"vex_{name}", "instance") for name in ("repositories", "tags", "manifests", "blobs")},
        ),
        ("Leases and uploads", "short", {name: _sum(f"vex_{name}", "instance") for name in ("leases", "uploads_open")}),
        ("Quotas used", "percentunit", {"{{repository}}": f"{_QUOTA_USED} / {_QUOTA_ALLOWED}"}),
        ("Damaged blobs", "short", {"{{instance}}": _sum("vex_damaged_blobs", "instance")}),
        ("Versions", "short", {"Vex {{version}}, Python {{python}}": _sum("vex_build_info", "version, python")}),
    ),
    "Process": (
        ("Processor", "percentunit", {"{{instance}}": _rate("process_cpu_seconds_total", "instance")}),
        ("Memory", "bytes", {"{{instance}}": _sum("process_resident_memory_bytes", "instance")}),
        (
            "Certificates valid for",
            "s",
            {"{{listener}}": f"min by (listener) (vex_tls_certificate_expiry_timestamp_seconds{_SELECTED}) - time()"},
        ),
        (
            "Since housekeeping was done",
            "s",
            {"{{step}}": f"time() - min by (step) (vex_housekeeping_success_timestamp_seconds{_SELECTED})"},
        ),
        (
            "Threads and files",
            "short",
            {name: _sum(f"process_{name}", "instance") for name in ("threads", "open_fds", "max_fds")},
        ),
    ),
}


def dashboard() -> str:
    """Write the dashboard; Grafana asks for the Prometheus to read from."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in _ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
                "panels": [],
            }
        )
        for number, panel in enumerate(row):
            place = {
                "x": number % _COLUMNS * _WIDTH,
                "y": top + 1 + number // _COLUMNS * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            }
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(*panel)})
        top += 1 + -(-len(row) // _COLUMNS) * _HEIGHT
    document = {
        "title": "Vex",
        "uid": "vex-registry",
        "tags": ["vex", "registry"],
        "schemaVersion": 36,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _VARIABLES},
        "panels": panels,
    }
    return json.dumps(document, indent=1)


def _panel(title: str, unit: str, queries: Queries) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(queries.items())
        ],
    }


_VARIABLES = [
    {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
    {
        "name": "instance",
        "label": "Registry",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(vex_build_info, instance)", "refId": "instances"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    },
]
