"""For how long `resilient-exec dump` holds a program up: the longest gap in a busy task, with and without.

A task in a ResilientPool reads its thread's CPU clock again and again; the longest step between two readings is what
anything that ran in between has taken: the handler that writes the stacks, for one.  (What the machine gives to others
meanwhile does not count.)  10 ms is the budget.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = """
import sys, time
from resilient_exec import ResilientPool

def work(seconds):
    end, last, worst = time.monotonic() + seconds, time.thread_time(), 0.0
    while time.monotonic() < end:
        now = time.thread_time()
        worst, last = max(worst, now - last), now
    return worst

if __name__ == "__main__":
    with ResilientPool(1) as pool:
        future = pool.submit(work, float(sys.argv[1]))
        print("ready", flush=True)
        print(future.result(), flush=True)
"""
BUDGET = 0.010  # s


def gap(folder: str, seconds: float, *, dumps: bool) -> tuple[float, int]:
    """The longest gap in s, and how many dumps were taken meanwhile."""
    script = Path(folder, "program.py")
    script.write_text(PROGRAM, encoding="utf-8")
    count = 0
    with subprocess.Popen([sys.executable, str(script), str(seconds)], stdout=subprocess.PIPE, text=True) as program:
        lines = iter(program.stdout or ())
        next(lines)
        until = time.monotonic() + seconds - 1.0
        while dumps and time.monotonic() < until:
            command = [sys.executable, "-m", "resilient_exec", "dump", str(program.pid)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            count += "in work" in done.stdout
        return float(next(lines)), count


def main(argv: list[str]) -> int:
    """Measure and tell; 0: within the budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args(argv).seconds
    with tempfile.TemporaryDirectory() as folder:
        alone, _ = gap(folder, seconds, dumps=False)
        watched, count = gap(folder, seconds, dumps=True)
    print(f"longest gap: alone {alone * 1e3:.2f} ms, with {count} dumps {watched * 1e3:.2f} ms")
    return 0 if count and watched <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
