"""Compares how this pool and its peers contain the faults of `tests/faults/fault_table.py`; each is run on each pool.

Each cell is a process of its own, in the peer's own environment: two workers, a limit of 1 s for each task if the peer
supports that, and twenty healthy tasks beside the faulty one (`_fault_run.py` has the steps). A fault is *contained* if
  - the faulty task ends, within its limit and 6 s of grace, with the right value if it returns one, else with an
    error; a timeout error is right for a hang only;
  - all healthy tasks return the right value, and each was executed exactly once;
  - the pool runs one more task;
  - its shutdown returns.
After each cell the process and all its descendants are killed; orphans become children of this program.

A cell that is not contained shows the first step that failed: `t` the end of the faulty task, `h` the healthy tasks,
`l` the later task, `s` the shutdown, `p` the program itself, which died or never ended.

Usage
    python benchmarks/fault_matrix.py                              everything; about 25 minutes on two cores
    --peers resilient_exec,pebble     these pools only (all of them: the first line of the table)
    --faults "unpickled"              faults whose name has that text (may be given more than once)
    --times 3                         run each cell so often; the first run that is not contained counts
    --list                            names of the faults
    --fresh                           make the environments anew
    --json FILE                       all results, with the message of each failure

Needs Linux and, the first time, the package index.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import _environments as environments
from _fault_peers import PEERS

CHECKOUT = Path(__file__).resolve().parent.parent
FAULTS = CHECKOUT / "tests" / "faults"
_SET_CHILD_SUBREAPER = 36  # of prctl(2)
CELL = 90.0  # s for one cell, whose steps have shorter ones of their own
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "resilient_exec": (),
    "deadpool": ("deadpool-executor",),
    "billiard": ("billiard",),
    "pebble": ("pebble",),
    "mpire": ("mpire",),
    "loky": ("loky",),
    "stdlib": (),
    "joblib": ("joblib",),
}
PACKAGES = {"deadpool": "deadpool-executor", "resilient_exec": "resilient-exec"}
FOOTNOTES = """\
loky and stdlib have no limit for a task. joblib's `timeout` and errors hold for a whole call of `Parallel`. billiard
has `lost_worker_timeout=0.5`; its default is 10. resilient_exec and deadpool have a memory limit, resilient_exec and
mpire a limit for the start of a worker; the others have none."""


def rows(wanted: list[str]) -> list[str]:
    """Names of the faults; of those that differ only in a signal or a moment, only some."""
    table: Any = importlib.import_module("fault_table")
    of_many = {f"killed by {name}" for name in ("SIGKILL", "SIGTERM", "SIGABRT", "SIGBUS")}
    names = []
    for fault in (*table.FAULTS, *table.NO_START, *table.HANDS):
        name = fault.name
        if getattr(fault, "slow", False) or getattr(fault, "output", ""):
            continue
        if name.startswith("killed by SIG") and name not in of_many:
            continue
        if "on its way" in name and "0.01 s" not in name:
            continue
        if not wanted or any(text.lower() in name.lower() for text in wanted):
            names.append(name)
    return names


def make_environments(peers: list[str], *, fresh: bool) -> dict[str, Path]:
    """The Python of each peer's environment."""
    version = ".".join(map(str, sys.version_info[:3]))
    here = environments.Interpreter(sys.executable, version, "this one")
    made = {}
    for peer in peers:
        if peer == "stdlib":
            made[peer] = Path(sys.executable)
            continue
        checkout = CHECKOUT if peer == "resilient_exec" else None
        made[peer] = environments.make_environment(
            here, REQUIREMENTS[peer], checkout, fresh=fresh, name=f"faults-{peer}"
        )
    return made


def versions(made: dict[str, Path]) -> dict[str, str]:
    """The version of each peer."""
    found = {}
    for peer, python in made.items():
        text = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
        if peer != "stdlib":
            text = f"from importlib.metadata import version; print(version({PACKAGES.get(peer, peer)!r}))"
        _, out, error = environments.run_group([str(python), "-c", text], 60)
        found[peer] = out.strip() or error.strip().splitlines()[-1]
    return found


def adopt_orphans() -> None:
    """Make this process a child subreaper: orphaned descendants become its children, and not those of init."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Children of all threads of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """All descendants of a process. A mark in the environment is not enough: deadpool's workers overwrite theirs."""
    below = children(pid)
    return below + [deeper for child in below for deeper in descendants(child)]


def end_descendants() -> int:
    """Kill and reap all descendants of this process; returns how many there were.

    Raises:
        RuntimeError: some are still alive 30 s later.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + 30
    while below := descendants(os.getpid()):
        seen.update(below)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {sorted(below)} do not end after SIGKILL")
        time.sleep(0.01)
    return len(seen)


def run_cell(peer: str, python: Path, fault: str) -> dict[str, Any]:
    """Run one fault on one peer; returns its report."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    variables = {"PYTHONPATH": os.pathsep.join([str(FAULTS), str(CHECKOUT / "benchmarks")])}
    with tempfile.TemporaryDirectory(prefix="fault-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [str(python), str(CHECKOUT / "benchmarks" / "_fault_run.py"), peer, fault, "report.json"]
        process = environments.start_marked(command, folder, mark, variables)
        status: int | None = None
        try:
            status = process.wait(CELL)
        except subprocess.TimeoutExpired:
            pass
        finally:
            left = end_descendants()
            process.wait()
        try:
            report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        except (OSError, ValueError):
            text = "it never ended" if status is None else f"it ended with status {status}"
            last = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-1:]
            report = {"contained": False, "step": "p", "text": " ".join([text, *last]), "seconds": CELL}
        return report | {"left": left}


def run_often(times: int, peer: str, python: Path, fault: str) -> dict[str, Any]:
    """The report of the first run that is not contained, else of the last."""
    for _ in range(times):
        report = run_cell(peer, python, fault)
        if not report["contained"]:
            break
    return report


def print_table(names: list[str], peers: list[str], cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Print the table in Markdown: a row for each fault, then the sums."""
    print(f"| fault | {' | '.join(peers)} |")
    print(f"|---|{'---|' * len(peers)}")
    for name in names:
        marks = ["✓" if cells[name, peer]["contained"] else cells[name, peer]["step"] for peer in peers]
        print(f"| {name} | {' | '.join(marks)} |")
    print_sums(names, peers, cells)


def print_sums(names: list[str], peers: list[str], cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Print the last row: how many faults each peer has contained."""
    sums = Counter(peer for name in names for peer in peers if cells[name, peer]["contained"])
    print(f"| **contained of {len(names)}** | {' | '.join(f'**{sums[peer]}**' for peer in peers)} |")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="names, with commas between (default: all)")
    parser.add_argument("--faults", action="append", default=[], metavar="TEXT", help="only faults with that text")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="runs of each cell (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the names of the faults and stop")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    given.peers = given.peers.split(",")
    if given.times < 1:
        parser.error(f"--times must be 1 or more, got {given.times}")
    if unknown := set(given.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return given


def main() -> int:
    """Run the cells, print the table."""
    sys.path.insert(0, str(FAULTS))
    given = arguments()
    names = rows(given.faults)
    if given.list or not names:
        print("\n".join(names) or f"no fault has {' or '.join(given.faults)} in its name: see --list")
        return 0 if given.list else 2
    try:
        made = make_environments(given.peers, fresh=given.fresh)
    except environments.SetupError as error:
        print(error, file=sys.stderr)
        return 2
    adopt_orphans()
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for name in names:
        for peer in given.peers:
            cell = cells[name, peer] = run_often(given.times, peer, made[peer], name)
            verdict = "contained" if cell["contained"] else f"NOT contained ({cell['step']}): {cell['text']}"
            print(f"{name} | {peer} | {cell['seconds']:.1f} s | {verdict}", file=sys.stderr, flush=True)
    print_table(names, given.peers, cells)
    print(f"\n{time.strftime('%Y-%m-%d')}; {', '.join(f'{peer} {v}' for peer, v in versions(made).items())}.")
    print(FOOTNOTES)
    if given.json:
        environments.write_json(given.json, {f"{name} | {peer}": cell for (name, peer), cell in cells.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
