"""Runs tests many times while every core is busy, which a new test that starts processes has to pass.

    python benchmarks/under_load.py [--times 200] [PYTEST ARGUMENTS ...]

Twice as many busy processes as there are CPUs compete with the tests, which are repeated by the option ``--repeat``
of ``tests/conftest.py``; the first failure ends the run.  The exit status is pytest's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys


def main() -> int:
    """Start busy processes, run pytest, and end them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200, help="how often each test is run (default: %(default)s)")
    arguments, pytest_arguments = parser.parse_known_args()
    burner = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # so none outlives this process
    burners = [subprocess.Popen([sys.executable, "-c", burner]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        return subprocess.run([*command, f"--repeat={arguments.times}", *pytest_arguments], check=False).returncode
    finally:
        for process in burners:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
