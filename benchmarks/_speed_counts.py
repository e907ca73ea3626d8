"""Measures two figures of `speed.py` without a peer: system calls for each task, and the cost of a core's decision.

Run as a script, this is what is traced: `python _speed_counts.py COUNT`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import _speed_tasks as tasks

COUNT = 400
BEGIN, END = "benchmark begins", "benchmark ends"
_CALL = re.compile(r"^(\d+)\s+(\w+)\(")


def traced(count: int) -> dict[str, Any]:
    """System calls of the parent and of its workers, and futex calls of all, for each no-op task, counted by strace."""
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        command = ["strace", "-f", "-qq", "-s", "64", "-o", str(trace), sys.executable, __file__, str(count)]
        out = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        threads = set(out.split())
        lines = trace.read_text(errors="replace").splitlines()
    begin, end = (next(n for n, line in enumerate(lines) if word in line) for word in (BEGIN, END))
    calls: Counter[tuple[str, str]] = Counter()
    for line in lines[begin + 1 : end]:
        found = _CALL.match(line)
        if found:
            calls["parent" if found[1] in threads else "worker", found[2]] += 1
    each = {who: sum(n for (whose, _), n in calls.items() if whose == who) / count for who in ("parent", "worker")}
    futexes = sum(n for (_, name), n in calls.items() if name == "futex") / count
    most = {f"{who} {name}": round(n / count, 2) for (who, name), n in calls.most_common(12)}
    return {"value": futexes, **each, "most": most}


def tournament(rounds: int) -> dict[str, Any]:
    """CPU and wall time of a clean tournament in terms of stock negmas's, which runs at the same time."""
    command = [sys.executable, str(Path(__file__).with_name("tournament.py")), "--parts", "clean"]
    command += ["--rounds", str(rounds), "--who", "stock", "ours"]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"ours / stock.*wall time ([\d.]+), CPU time ([\d.]+)", out)
    if found is None:
        raise RuntimeError((out.strip().splitlines() or ["benchmarks/tournament.py said nothing"])[-1])
    return {"value": float(found[2]), "wall_time": float(found[1])}


def run(count: int) -> None:
    """Run the tasks between two marks in the trace; print the threads of this process."""
    from resilient_exec import ResilientPool

    with ResilientPool(2) as pool:
        for warm in [pool.submit(tasks.last, 0.01) for _ in range(8)]:
            warm.result()
        _mark(BEGIN)
        for future in [pool.submit(tasks.nothing, number) for number in range(count)]:
            future.result()
        _mark(END)
        print(*os.listdir("/proc/self/task"))


def _mark(words: str) -> None:
    try:
        os.stat(f"/{words}")
    except OSError:
        return


if __name__ == "__main__":
    run(int(sys.argv[1]))
