"""The results as tables in Markdown, and as JSON."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import Figure, Result, Row, Sample, Side


def result_table(results: Sequence[Result]) -> str:
    """Show results of the same sides: medians, with minimum and maximum in parentheses."""
    sides = [side for side in (results[0].second, results[0].baseline) if side.name]
    head = ["work", "unit", results[0].vex.name]
    for side in sides:
        head += [side.name, "ratio", "goal"]
    head += ["processor time", results[0].vex.name]
    for side in sides:
        head += [side.name, "ratio", "goal"]
    return _table([*head, "reached"], [_cells(result) for result in results])


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
                "sides": [_side(side) for side in (result.vex, result.second, result.baseline) if side.name],
                "reached": result.verdict(),
            }
            for result in results
        ],
        "figures": [figure._asdict() for figure in figures],
    }


def _cells(result: Result) -> list[str]:
    row, vex = result.row, result.vex
    compared = ((result.second, row.goal), (result.baseline, row.baseline_goal))
    sides = [(side, goal) for side, goal in compared if side.name]
    cells = [row.title, row.unit.value, _values(vex)]
    for side, goal in sides:
        cells += [_values(side), _spread(result.ratios(side)), _goal(">=", goal.times, " in each round" * goal.always)]
    cells += [row.unit.cpu, _cpu(row, vex.samples)]
    for side, goal in sides:
        cells += [_cpu(row, side.samples), _spread(result.cpu_ratios(side)), _goal("<=", goal.cpu)]
    return [*cells, result.verdict()]


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "failure": side.failure,
        "samples": [sample._asdict() for sample in side.samples],
    }


def _values(side: Side) -> str:
    """Show what was measured, or the words of the failure before its colon."""
    return side.failure.partition(":")[0] or _spread([sample.value for sample in side.samples])


def _goal(relation: str, value: float | None, when: str = "") -> str:
    return "" if value is None else f"{relation} {number(value)}{when}"


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
