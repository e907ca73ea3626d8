"""The table of `speed.py` in Markdown, as `docs/performance.md` shows it."""

from __future__ import annotations

import statistics
import time
from typing import Any

from _speed_chart import bars


def table(data: dict[str, Any]) -> str:
    """One line for each row: how many times better than each peer, our further figures, each budget and its verdict."""
    lines = ["| what | times better than | figures of its own | budgets |", "|---|---|---|---|"]
    for name, row in data["rows"].items():
        peers = " · ".join(f"{peer} {value:.2f}" for peer, value in bars(row).items())
        ours = next(iter(row["sides"].values()))
        names = dict.fromkeys(key for one in ours for key, value in one.items() if isinstance(value, int | float))
        shown = [] if peers else [f"{_middle(ours, 'value')} {row['unit']}"]
        shown += [f"{key.replace('_', ' ')} {_middle(ours, key)}" for key in names if key != "value"]
        budgets = "<br>".join(
            f"{'met' if one['met'] else '**missed**'}: {one['what']} ({one['asked']})" for one in row["budgets"]
        )
        lines.append(f"| {name} ({row['unit']}) | {peers or 'no peer'} | {'; '.join(shown)} | {budgets} |")
    day = time.strftime("%Y-%m-%d", time.localtime(data["began"]))
    loads = [one[0] for one in data["load"]]
    foot = f"({day}, Python {data['python']}, {data['cpus']} CPUs, load {min(loads):.1f} to {max(loads):.1f}.)"
    return "\n".join([*lines, "", foot, ""])


def _middle(measured: list[dict[str, Any]], key: str) -> str:
    values = [one[key] for one in measured if one.get(key) is not None]
    return f"{statistics.median(values):.4g}" if values else "not measured"
