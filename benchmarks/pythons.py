"""Runs our tests on each Python that is found (3.11 to 3.15), and prints a table.

    python benchmarks/pythons.py [--slow] [--pythons PATH ...] [--tests PATH ...]

Found are ``python3.11`` to ``python3.15`` on the PATH and under pyenv, and what ``--pythons`` names: interpreters, or
folders that are virtual environments.  An interpreter that has pytest and what we depend on is used as it is; for
others a virtual environment is made in a temporary folder, by pip.  The tests of the adapters are left out where negmas
and scml are not installed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
NEEDED = ("loky", "cloudpickle", "tenacity", "psutil", "pytest", "hypothesis", "numpy")
ASK = "import sys; print('%d.%d.%d' % sys.version_info[:3]); import " + ", ".join(NEEDED)
HAS_NEGMAS = "import negmas, scml"
WITH_NEGMAS = ("tests/adapters", "tests/cli", "tests/docs", "tests/diagnosis")


def found(named: list[str]) -> list[str]:
    """Interpreters, one for each version, what was named first."""
    candidates = [str(Path(name) / "bin" / "python") if Path(name).is_dir() else name for name in named]
    for version in VERSIONS:
        candidates += filter(None, [shutil.which(f"python{version}")])
        candidates += sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}*/bin/python")), reverse=True)
    by_version: dict[str, str] = {}
    for program in candidates:
        version = said(program, "import sys; print('%d.%d' % sys.version_info[:2])")
        if version in VERSIONS:
            by_version.setdefault(version, program)
    return [by_version[version] for version in VERSIONS if version in by_version]


def said(program: str, code: str) -> str:
    """What the interpreter prints, ``""`` where it fails."""
    try:
        ended = subprocess.run([program, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout.strip()


def equipped(program: str, folder: str) -> str:
    """The interpreter, or one of a virtual environment of it, that has what the tests need."""
    if said(program, ASK):
        return program
    place = Path(folder) / Path(program).parts[-3]
    subprocess.run([program, "-m", "venv", place], check=True)
    own = str(place / "bin" / "python")
    subprocess.run([own, "-m", "pip", "install", "-q", *NEEDED], check=True)
    return own


def run(program: str, tests: list[str], *, slow: bool) -> tuple[str, str, float]:
    """The last line of pytest, the names of what failed, and the seconds that it took."""
    ignored = [] if said(program, HAS_NEGMAS + "; print(1)") else [f"--ignore={path}" for path in WITH_NEGMAS]
    command = [
        program,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *ignored,
        *(["--run-slow"] if slow else []),
        *tests,
    ]
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = ended.stdout.strip().splitlines() or [ended.stderr.strip()[-200:]]
    failed = "\n".join(line for line in lines if re.match(r"(FAILED|ERROR) ", line))
    return lines[-1], failed, time.monotonic() - began


def main() -> int:
    """Run them all; the number of Pythons on which something failed."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pythons", nargs="*", default=[], metavar="PATH", help="interpreters, or virtual environments")
    asked.add_argument("--tests", nargs="*", default=["tests"], metavar="PATH", help="what to run instead of all")
    asked.add_argument("--slow", action="store_true", help="the slow tests, too")
    given = asked.parse_args()
    programs, bad = found(given.pythons), 0
    print(f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, {sys.platform}, {os.cpu_count()} CPUs")
    print("| Python | tests | s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for program in programs:
            own = equipped(program, folder)
            words, failed, seconds = run(own, given.tests, slow=given.slow)
            bad += bool(failed) or "passed" not in words
            print(f"| {said(own, ASK)} | {words.strip('= ')} | {seconds:.0f} |{failed and chr(10)}{failed}", flush=True)
    missing = [version for version in VERSIONS if not any(version in said(one, ASK) for one in programs)]
    print(f"not found: {', '.join(missing)}" if missing else "all five were found")
    return bad


if __name__ == "__main__":
    sys.exit(main())
