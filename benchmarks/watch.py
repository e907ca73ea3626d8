"""What `resilient-exec watch` costs the program that it watches: the same work with and without, in turns.

Each program tells the seconds of CPU that it and its workers have used, from their start to the end (time would tell
what else the machine does).  Printed is the ratio of the medians; 1.02 is the budget, and the last program is beyond
any use of a pool: tasks of some microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

POOL = """
    import concurrent.futures, os

    def work(_):
        return sum(range({size}))

    if __name__ == "__main__":
        with concurrent.futures.{executor}(2) as executor:
            list(executor.map(work, range({tasks})))
        print(sum(os.times()[:4]))
    """
PROGRAMS = {
    "no pool": """
        import os
        total = 0
        for number in range(30_000_000):
            total += number
        print(sum(os.times()[:4]))
        """,
    "process pool": POOL.format(executor="ProcessPoolExecutor", tasks=2000, size=100_000),
    "thread pool": POOL.format(executor="ThreadPoolExecutor", tasks=2000, size=100_000),
    "thread pool, tiny tasks": POOL.format(executor="ThreadPoolExecutor", tasks=100_000, size=1),
}


def seconds(program: str, under: list[str], folder: str) -> float:
    """Of CPU, as the program tells them."""
    path = Path(folder, "program.py")
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    done = subprocess.run([*under, sys.executable, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(argv: list[str]) -> int:
    """Measure and tell; 0: within the budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args(argv).rounds
    watch = [sys.executable, "-m", "resilient_exec", "watch", "--"]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, program in PROGRAMS.items():
            alone: list[float] = []
            watched: list[float] = []
            for number in range(rounds):
                both = [(alone, []), (watched, watch)]
                for found, under in both if number % 2 else reversed(both):  # who goes first changes
                    found.append(seconds(program, under, folder))
            ratio = statistics.median(watched) / statistics.median(alone)
            worst = max(worst, ratio if "tiny" not in name else 0.0)
            print(
                f"{name:24}  alone {statistics.median(alone):.3f} s  watched {statistics.median(watched):.3f} "
                f"s  {ratio:.3f}"
            )
    return 0 if worst <= 1.02 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
