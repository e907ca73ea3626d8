"""Draws what `speed.py` has measured: for each row how many times better the pool is than each peer, on a log scale."""

from __future__ import annotations

import importlib
import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = 3


def draw(data: dict[str, Any], file: Path) -> None:
    """One small panel for each row that has peers; a bar beyond 1 means that the pool is better than that peer."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plots: Any = importlib.import_module("matplotlib.pyplot")
    panels = {name: bars(row) for name, row in data["rows"].items()}
    panels = {name: values for name, values in panels.items() if values}
    lines = -(-len(panels) // COLUMNS)
    figure, axes = plots.subplots(lines, COLUMNS, figsize=(4 * COLUMNS, 2 * lines), squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, values) in zip(axes.flat, panels.items(), strict=False):
        axis.set_visible(True)
        colours = ["#2a7f3f" if value >= 1 else "#b03a2e" for value in values.values()]
        axis.barh(list(values), [value - 1 for value in values.values()], left=1, color=colours)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlim(min(0.5, *values.values()) / 1.3, max(2, *values.values()) * 1.6)
        axis.minorticks_off()
        ticks = [
            tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if axis.get_xlim()[0] < tick < axis.get_xlim()[1]
        ]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        for number, value in enumerate(values.values()):
            axis.text(max(value, 1), number, f" {value:.2f}", va="center", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.invert_yaxis()
        axis.set_title(f"{name} ({data['rows'][name]['unit']})", fontsize=9)
    day = time.strftime("%Y-%m-%d", time.localtime(data["began"]))
    title = f"resilient_exec: times better than each peer (Python {data['python']}, {data['cpus']} CPUs, {day})"
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def bars(row: dict[str, Any]) -> dict[str, float]:
    """For each peer, how many times better this pool is: the median of the rounds."""
    ours, *others = row["sides"]
    found = {}
    for side in others:
        pairs = zip(row["sides"][ours], row["sides"][side], strict=True)
        both = [(mine["value"], other["value"]) for mine, other in pairs if mine.get("value") and other.get("value")]
        if both:
            found[side] = statistics.median(a / b if row["more_is_better"] else b / a for a, b in both)
    return found
