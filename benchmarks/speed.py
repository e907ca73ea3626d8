"""How fast the pool is beside its peers: all budgets, all sides in turn, in one run.

    python benchmarks/speed.py                 # everything, at most 20 minutes
    python benchmarks/speed.py --quick         # 2 minutes: what shows whether something has become slow
    python benchmarks/speed.py --rows no-op "map, mixed" --rounds 9

Each figure is measured in a process of its own.  In each round all sides of a row run one after the other, in the
other order in every second round, so that a machine whose speed drifts is as unfair to one as to the other; what
counts is the ratio within a round, of which the median is told.  A side that is not installed is left out (`pip install
pebble deadpool-executor joblib mpire billiard` brings the peers).  A budget that is missed is printed as missed; the
exit status is the number of those.  `--json FILE` keeps all that was measured, `--table FILE` writes it in Markdown,
`--chart FILE` draws it (matplotlib).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _speed_table
from _speed_sides import LEARNED, OURS, PROTECTED, SIDES

HERE = Path(__file__).resolve().parent
CELL = 100.0  # s for one measurement ...
LONGEST = {"tournament": 900.0}  # ... of other rows
_EXEC = "resilient_exec, by exec"
_ALL = [
    name for name in SIDES if name != "joblib" and not name.endswith((", protected", ", timeout", ", cost learned"))
]
_MAPS = [OURS, "joblib", "mp.Pool", "stdlib", "pebble", "mpire"]
_EXECUTORS = [OURS, "stdlib", "loky", "pebble", "mp.Pool", "deadpool"]


@dataclass(frozen=True)
class Budget:
    """What is asked of a row.

    Attributes:
        least: how many times better than the peer; or, without a peer, the bound of the figure itself.
        peer: the side to compare with; ``best``: the best of the others.
        figure: which of the figures.
    """

    least: float
    peer: str = ""
    figure: str = "value"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        unit: of its figure.
        sides: who is compared.
        sizes: how much is done in a full and in a quick run; 0: not in a quick one.
        more_is_better: else less is.
        budgets: what is asked of ours.
        rounds: how many in a full run.
    """

    unit: str
    sides: list[str]
    sizes: tuple[int, int]
    more_is_better: bool
    budgets: list[Budget] = field(default_factory=list)
    rounds: int = 5


def _map_row(sizes: tuple[int, int], *more: Budget) -> Row:
    budgets = [Budget(1, "joblib"), Budget(1, "mp.Pool"), *more]
    return Row("calls/s", _MAPS, sizes, more_is_better=True, budgets=budgets, rounds=3)


ROWS: dict[str, Row] = {
    "no-op": Row("tasks/s", _ALL, (3000, 1000), True, [Budget(3, "stdlib"), Budget(5, "loky"), Budget(2, "pebble")]),
    "no-op, protected": Row(
        "tasks/s", [PROTECTED, "pebble, timeout", "deadpool, timeout"], (3000, 1000), True,
        [Budget(1.5, "pebble, timeout")],
    ),
    "map, no-op": _map_row((100_000, 30_000)),
    "map, 100 us": _map_row((10_000, 0)),
    "map, 1 ms": _map_row((2_000, 500)),
    "map, 10 ms": _map_row((200, 0)),
    "map, 1 s": _map_row((6, 0)),
    "map, mixed": _map_row((400, 0), Budget(1.15, figure="of_ideal")),
    "makespan": Row(
        "x ideal", [OURS, "pebble", "deadpool"], (200, 0), False,
        [Budget(1.10), Budget(0, figure="innocents_repeated")], 3,
    ),
    "tail": Row("x ideal", [OURS, LEARNED, "stdlib"], (40, 40), False, [Budget(1.05)], 3),
    "straggler": Row("x ideal", [OURS, "stdlib"], (40, 0), False, [], 3),
    "first result": Row("s", [*_EXECUTORS, _EXEC], (3, 3), False, [Budget(1, "pebble"), Budget(1, "stdlib")]),
    "after a kill": Row(
        "s", [OURS, "deadpool", "pebble", "loky", "stdlib"], (10, 5), False, [Budget(2, "deadpool")], 3
    ),
    "result": Row("MB/s", _EXECUTORS, (3, 0), True, [Budget(2, "best")], 3),
    "argument": Row("MB/s", _EXECUTORS, (3, 0), True, [Budget(2, "best")], 3),
    "parent": Row(
        "descriptors/lane", [OURS, "stdlib", "loky", "pebble", "deadpool"], (20_000, 5000), False,
        [Budget(8), Budget(1, figure="threads_awake"), Budget(1, "stdlib", "bytes_a_task")], 3,
    ),
    "64 lanes": Row(
        "of ideal", [OURS, "stdlib"], (6400, 0), True, [Budget(0.9), Budget(1024, figure="descriptors")], 1
    ),
    "counts": Row("futexes/task", [OURS], (400, 200), False,
                  [Budget(4), Budget(4, figure="parent"), Budget(6, figure="worker")], 1),
}  # fmt: skip
ROWS |= {
    "core": Row("us/decision", [OURS], (1_000_000, 100_000), False,
                [Budget(5), Budget(1.5, figure="times_that_of_a_tenth")], 1),
    "tournament": Row("x stock's CPU", [OURS], (1, 0), False, [Budget(1.02), Budget(1.02, figure="wall_time")], 1),
}  # fmt: skip
ALONE = {  # rows that are measured by a program of their own
    "counts": "import json, _speed_counts as c; print(json.dumps(c.traced({size})))",
    "core": "import json, _speed_core as c; print(json.dumps(c.measure({size})))",
    "tournament": "import json, _speed_counts as c; print(json.dumps(c.tournament({size})))",
}
AT_MOST = {
    "of_ideal",
    "innocents_repeated",
    "threads_awake",
    "descriptors",
    "parent",
    "worker",
    "bytes_a_task",
    "wall_time",
    "times_that_of_a_tenth",
}


def measure(row: str, side: str, size: int) -> dict[str, Any]:
    """Have it measured once, in a process of its own; ``words`` in place of a figure where that failed."""
    command = [sys.executable, "-W", "ignore", str(HERE / "_speed_rows.py"), row, side, str(size)]
    if row in ALONE:
        command = [sys.executable, "-c", ALONE[row].format(size=size)]
    # Where compiled modules are not kept, this package, unlike installed ones, would be compiled in each process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(
        command,
        cwd=HERE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, error = process.communicate(timeout=LONGEST.get(row, CELL))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return {"words": f"not finished after {LONGEST.get(row, CELL):.0f} s"}
    try:
        return dict(json.loads(out.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        return {"words": (error.strip().splitlines() or ["no words"])[-1][:200]}


def run(name: str, rounds: int, *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """All rounds of a row: for each side what was measured."""
    row = ROWS[name]
    names = [side for side in row.sides if side not in SIDES or SIDES[side].is_installed]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in names}
    for number in range(rounds):
        for side in names if number % 2 == 0 else reversed(names):
            found[side].append(measure(name, side, row.sizes[quick]))
    return found


def median(values: list[float]) -> float:
    """The median; not a number where there is none."""
    return statistics.median(values) if values else float("nan")


def figures(found: list[dict[str, Any]], figure: str) -> list[float]:
    """What was measured of it."""
    return [each[figure] for each in found if each.get(figure) is not None]


def ratio(row: Row, ours: list[dict[str, Any]], peers: list[dict[str, Any]], figure: str) -> float:
    """How many times better ours is: the median of the ratios within a round."""
    pairs = [
        (mine[figure], other[figure])
        for mine, other in zip(ours, peers, strict=False)
        if mine.get(figure) and other.get(figure)
    ]
    more = row.more_is_better and figure == "value"
    return median([mine / other if more else other / mine for mine, other in pairs])


def judge(name: str, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each budget of a row, and whether it is met."""
    row, verdicts = ROWS[name], []
    ours = found[row.sides[0]]
    for budget in row.budgets:
        peer = budget.peer
        if peer == "best":
            others = [side for side in found if side != row.sides[0]]
            best = max if row.more_is_better else min
            peer = best(others, key=lambda side: median(figures(found[side], "value")))
        if peer:
            if peer not in found:
                continue
            value = ratio(row, ours, found[peer], budget.figure)
            what, met = f"{budget.figure.replace('_', ' ')} x {value:.2f} {peer}'s", value >= budget.least
            asked = f">= {budget.least:g}"
        else:
            value = median(figures(ours, budget.figure))
            is_bound_above = budget.figure in AT_MOST or not row.more_is_better
            what = f"{budget.figure.replace('_', ' ')} {value:.2f}".removeprefix("value ")
            met = value <= budget.least if is_bound_above else value >= budget.least
            asked = f"{'<=' if is_bound_above else '>='} {budget.least:g}"
        verdicts.append({"row": name, "what": what.removeprefix("value "), "asked": asked, "met": bool(met)})
    return verdicts


def tell(name: str, found: dict[str, list[dict[str, Any]]], verdicts: list[dict[str, Any]]) -> None:
    """Print a row."""
    row = ROWS[name]
    print(f"\n{name} ({row.unit})", flush=True)
    ours = found[row.sides[0]]
    for side, measured in found.items():
        value = median(figures(measured, "value"))
        if value != value:  # noqa: PLR0124  not a number
            print(f"  {side:28} {measured[-1].get('words', 'nothing was measured')}")
            continue
        text = f"  {side:28}{value:12,.3f}" if value < 100 else f"  {side:28}{value:12,.0f}"
        if side != row.sides[0]:
            times = ratio(row, ours, measured, "value")
            text += f"   ours is x {times:.2f}" if times == times else ""  # noqa: PLR0124
        extra = {
            key: median(figures(measured, key))
            for key, value in measured[-1].items()
            if key != "value" and isinstance(value, int | float)
        }
        print(text + "".join(f"   {key.replace('_', ' ')} {value:.4g}" for key, value in extra.items()))
    for verdict in verdicts:
        print(f"  {'ok    ' if verdict['met'] else 'MISSED'} {verdict['what']} (asked: {verdict['asked']})", flush=True)


def load() -> list[float]:
    """Processes that want a CPU, over 1, 5 and 15 minutes."""
    return [round(one, 2) for one in os.getloadavg()]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="some two minutes")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], metavar="ROW", help="; ".join(ROWS))
    parser.add_argument("--rounds", type=int, help="for every row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all that was measured")
    parser.add_argument("--table", type=Path, metavar="FILE", help="where to write it as a table in Markdown")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="where to draw it")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Measure, judge, print; how many budgets are missed."""
    args = parse(argv)
    began, before = time.time(), load()
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, {os.cpu_count()} CPUs, load {before}, {time.strftime('%Y-%m-%d %H:%M')}")
    absent = [name for name, side in SIDES.items() if not side.is_installed]
    if absent:
        print(f"not installed, left out: {', '.join(absent)}")
    data: dict[str, Any] = {"python": version, "cpus": os.cpu_count(), "began": began, "load": [before], "rows": {}}
    verdicts: list[dict[str, Any]] = []
    for name in args.rows or ROWS:
        row = ROWS[name]
        if args.quick and not row.sizes[1]:
            continue
        found = run(name, args.rounds or (1 if args.quick else row.rounds), quick=args.quick)
        judged = judge(name, found)
        verdicts += judged
        tell(name, found, judged)
        data["rows"][name] = {"unit": row.unit, "more_is_better": row.more_is_better, "sides": found, "budgets": judged}
        data["load"].append(load())
    missed = [verdict for verdict in verdicts if not verdict["met"]]
    print(f"\n{len(verdicts) - len(missed)} of {len(verdicts)} budgets met; load {load()}; {time.time() - began:.0f} s")
    for verdict in missed:
        print(f"MISSED: {verdict['row']}: {verdict['what']} (asked: {verdict['asked']})")
    if args.json:
        args.json.write_text(json.dumps(data, indent=1))
    if args.table:
        args.table.write_text(_speed_table.table(data))
    if args.chart:
        import _speed_chart

        _speed_chart.draw(data, args.chart)
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
