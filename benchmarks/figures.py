"""What was measured, and what does it mean? Medians of several runs, and ratios to the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal

OURS = "django_tasks"
"""How the names of our own settings begin; those of the others do not."""

Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of one run."""

    measure: str
    value: float
    unit: str
    better: Better


@dataclass(frozen=True, slots=True)
class Figure:
    """The readings of one measure of one system, over all runs."""

    benchmark: str
    database: str
    system: str
    measure: str
    unit: str
    better: Better
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def times_better(self, other: Figure) -> float | None:
        """Return how many times better this one is; None where that has no meaning."""
        ours, theirs = (self.median, other.median) if self.better == "more" else (other.median, self.median)
        return ours / theirs if theirs else None


@dataclass(frozen=True, slots=True)
class Absence:
    """Something that was not measured, and why."""

    benchmark: str
    database: str
    system: str
    reason: str


def table(figures: Iterable[Figure]) -> Iterator[str]:
    """Give the lines of a table: a line for each measure and system, with the ratio to our best beside each of the
    others."""
    listed = list(figures)
    ours = _best_of_ours(listed)
    rows = [("database", "measure", "system", "median", "least", "most", "our best is")]
    last = ("", "")
    for figure in listed:
        key = (figure.benchmark, figure.database, figure.measure)
        reference = ours.get(key)
        ratio = reference.times_better(figure) if reference and not figure.system.startswith(OURS) else None
        where = (figure.database, figure.measure)
        shown = where if where != last else ("", "")
        last = where
        rows.append(
            (
                *shown,
                figure.system,
                f"{_number(figure.median)} {figure.unit}".strip(),
                _number(min(figure.values)),
                _number(max(figure.values)),
                f"{ratio:.1f} x" if ratio is not None else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = (3, 4, 5, 6)
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _best_of_ours(figures: Iterable[Figure]) -> dict[tuple[str, str, str], Figure]:
    """Return our best figure of each measure of each database: others are measured at their best, too."""
    best: dict[tuple[str, str, str], Figure] = {}
    for figure in figures:
        if figure.system.startswith(OURS):
            key = (figure.benchmark, figure.database, figure.measure)
            ratio = figure.times_better(best[key]) if key in best else None
            if key not in best or (ratio is not None and ratio > 1):
                best[key] = figure
    return best


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"
