"""Runs our daily tests on several Pythons, each in an environment of its own, and prints one line for each.

    python benchmarks/pythons.py [PYTHON ...] [--tests PATH ...] [--slow] [--jobs N] [--fresh] [--json FILE]

PYTHON is an interpreter (a path, or a name on the PATH such as ``python3.14``), or a folder with ``bin/python``.
Without any, those of 3.11 to 3.15 are run that are found: on the PATH and under pyenv, the newest release of each.

Each environment is made by pip, outside the checkout (``~/.cache/resilient-exec/environments``), and used again by the
next run; this checkout is installed in it as an editable package, with negmas, scml and what tests need. Where negmas
and scml cannot be installed on a Python, its line says so, and ``tests/adapters`` is left out there. A Python that
comes without pip (Debian's) is given one.

Exit status: 0 if every test passed on each Python, 1 if not, 2 if one named does not run or has no environment.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import functools
import hashlib
import os
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import _environments as environments

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
TOOLS = ("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "numpy")
NEEDS_NEGMAS = ("tests/adapters",)
LIMIT = 7200.0  # s for the tests on one Python; the slow ones have ten times as long


@dataclass
class Run:
    """The tests on one Python: pytest's last line, the lines of what failed, how long it took in s."""

    python: str
    version: str
    words: str = ""
    seconds: float = 0.0
    with_negmas: bool = True
    failed: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether tests ran, and each passed."""
        return re.match(r"\d+ passed", self.words) is not None and not self.failed

    def __str__(self) -> str:
        without = "" if self.with_negmas else " (negmas and scml cannot be installed: without tests/adapters)"
        return "\n    ".join([f"Python {self.version}: {self.words}{without}", *self.failed])


def main() -> int:
    """Run them all."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("pythons", nargs="*", metavar="PYTHON", help="default: those of 3.11 to 3.15 that are found")
    asked.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="what to run instead of all")
    asked.add_argument("--slow", action="store_true", help="the slow tests, too: many hours")
    asked.add_argument("--jobs", type=int, default=2, metavar="N", help="tests at a time (default: %(default)s)")
    asked.add_argument("--fresh", action="store_true", help="make the environments anew")
    asked.add_argument("--json", type=Path, metavar="FILE", help="all results")
    given = asked.parse_args()
    try:
        pythons = [interpreter(name) for name in given.pythons] or found()
    except environments.SetupError as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, {sys.platform}, {os.cpu_count()} CPUs", flush=True)
    runs, without = [], 0
    for python in pythons:
        try:
            program, with_negmas = equipped(python, fresh=given.fresh)
        except environments.SetupError as problem:
            print(f"Python {python.version}: no environment: {problem}", flush=True)
            without += 1
            continue
        run = Run(python.path, python.version, with_negmas=with_negmas)
        run_tests(run, program, given.tests, jobs=given.jobs, slow=given.slow)
        print(run, flush=True)
        runs.append(run)
        if given.json:
            environments.write_json(given.json, {"runs": [asdict(one) | {"good": one.good} for one in runs]})
    missing = [version for version in VERSIONS if not any(one.version.startswith(f"{version}.") for one in runs)]
    if missing:
        print(f"not run: {', '.join(missing)}")
    return 2 if without or not runs else int(not all(run.good for run in runs))


def interpreter(name: str) -> environments.Interpreter:
    """The interpreter of that name.

    Raises:
        SetupError: there is none, or it is older than Python 3.11.
    """
    path = str(Path(name) / "bin" / "python") if Path(name).is_dir() else shutil.which(name) or name
    version = version_of(path)
    if not version:
        raise environments.SetupError(f"{name} is no Python that runs: give the path of one, or of its folder")
    if tuple(map(int, version.split(".")[:2])) < (3, 11):
        raise environments.SetupError(f"{name} is Python {version}; resilient_exec needs 3.11 or newer")
    return environments.Interpreter(str(Path(path).absolute()), version, "named")


def version_of(path: str) -> str:
    """Such as "3.12.1"; "" if it does not run."""
    with contextlib.suppress(OSError):
        code, out, _ = environments.run_group([path, "-c", "import platform; print(platform.python_version())"], 60.0)
        return out.strip() if code == 0 else ""
    return ""


def found() -> list[environments.Interpreter]:
    """One interpreter for each version: what the PATH leads to, else the newest release under pyenv."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    chosen = []
    for version in VERSIONS:
        pattern = re.compile(rf"{re.escape(version)}\.(\d+)")
        releases = {int(m[1]): p for p in root.glob(f"{version}.*") if (m := pattern.fullmatch(p.name))}
        named = shutil.which(f"python{version}")
        for path in filter(None, [named, *(str(releases[n] / "bin" / "python") for n in sorted(releases)[::-1])]):
            # A shim of pyenv is on the PATH for versions, too, that are not chosen: it does not run.
            if version_of(path).startswith(f"{version}."):
                chosen.append(interpreter(path))
                break
    return chosen


def equipped(python: environments.Interpreter, *, fresh: bool) -> tuple[str, bool]:
    """The Python of an environment that has what the tests need, and whether that includes negmas and scml.

    Raises:
        SetupError: what is needed besides them cannot be installed.
    """
    needs = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + bytes(ROOT)).hexdigest()[:8]
    make = functools.partial(environments.make_environment, python, checkout=None, fresh=fresh, name=f"pythons-{needs}")
    try:
        return str(make(("-e", f"{ROOT}[scml]", *TOOLS))), True
    except environments.SetupError as problem:
        print(f"without negmas and scml, since: {problem}", flush=True)
        return str(make(("-e", str(ROOT), *TOOLS))), False


def run_tests(run: Run, program: str, tests: list[str], *, jobs: int, slow: bool) -> None:
    """Run the tests, and note what came of them."""
    command = [program, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(jobs), *tests]
    command += [] if run.with_negmas else [f"--ignore={path}" for path in NEEDS_NEGMAS]
    command += ["--run-slow"] if slow else []
    variables = environments.clean_environment()
    variables["PATH"] = os.pathsep.join([str(Path(program).parent), variables.get("PATH", os.defpath)])
    began = time.monotonic()
    _, out, error = environments.run_group(command, LIMIT * (10 if slow else 1), cwd=ROOT, env=variables)
    lines = out.strip().splitlines() or error.strip().splitlines()
    run.seconds = round(time.monotonic() - began, 1)
    run.words = lines[-1].strip("= ") if lines else "pytest said nothing"
    run.failed = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]


if __name__ == "__main__":
    sys.exit(main())
