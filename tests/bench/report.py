"""The results as tables in Markdown, and as JSON."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import Figure, Result, Row, Sample


def result_table(results: Sequence[Result], first: str, second: str) -> str:
    """Show results: medians, with minimum and maximum in parentheses."""
    head = ["work", "unit", first, second, "ratio", "goal", "processor time", first, second, "ratio", "goal", "reached"]
    return _table(head, [_cells(result) for result in results])


def figure_table(figures: Sequence[Figure]) -> str:
    """Show results without a peer."""
    rows = [
        [
            figure.title,
            f"{_spread(figure.values)} {figure.unit}",
            figure.goal,
            {True: "yes", False: "no", None: ""}[figure.reached],
        ]
        for figure in figures
    ]
    return _table(["what", "measured", "goal", "reached"], rows)


def machine() -> str:
    """Describe this machine."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return (
        f"{len(models)} x {models[0] if models else 'unknown'}, Linux {platform.release()}, Python"
        f" {platform.python_version()}"
    )


def as_json(results: Sequence[Result], figures: Sequence[Figure]) -> dict[str, Any]:
    """Give everything that was measured."""
    return {
        "machine": machine(),
        "rows": [
            {
                "name": result.row.name,
                "title": result.row.title,
                "pair": result.row.pair,
                "unit": result.row.unit.value,
                "first": [sample._asdict() for sample in result.first],
                "second": [sample._asdict() for sample in result.second],
                "reached": result.verdict(),
                "failure": result.failure,
            }
            for result in results
        ],
        "figures": [figure._asdict() for figure in figures],
    }


def _cells(result: Result) -> list[str]:
    row = result.row
    if result.failure:
        return [row.title, "failed", *[""] * 9, "no"]
    return [
        row.title,
        row.unit.value,
        _spread([sample.value for sample in result.first]),
        _spread([sample.value for sample in result.second]),
        _spread(result.ratios()),
        "" if row.goal is None else f">= {number(row.goal)}",
        row.unit.cpu,
        _cpu(row, result.first),
        _cpu(row, result.second),
        _spread(result.cpu_ratios()),
        "" if row.cpu_goal is None else f"<= {number(row.cpu_goal)}",
        result.verdict(),
    ]


def _cpu(row: Row, samples: Sequence[Sample]) -> str:
    values = [sample.cpu * row.unit.cpu_factor for sample in samples if sample.cpu is not None]
    return number(statistics.median(values)) if values else ""


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    median = number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    """Write a number with three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)
