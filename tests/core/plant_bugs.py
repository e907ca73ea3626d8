"""Plant bugs in a copy of the package, one at a time, and see whether the tests of the core catch each.

    python tests/core/plant_bugs.py               # all, in two processes
    python tests/core/plant_bugs.py --machine     # is the random game alone good enough?
    python tests/core/plant_bugs.py late memory   # those in whose head line one of these words stands

A bug is caught when a test *fails*; a copy that cannot even be imported or collected is an error of the plant.  The
bugs are in ``planted_bugs.txt``: each replaces lines that must stand exactly once in their module, else nothing is run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent / "resilient_exec"
BUGS = HERE / "planted_bugs.txt"
UNIT_TESTS = [
    "test_core.py",
    "test_core_*.py",
    "test_backlog.py",
    "test_restart_budget.py",
    "test_transitions.py",
    "test_purity.py",
]
GAME = ["test_machine.py", "test_speculation_game.py"]
HANGS_AFTER = 300.0  # s
# A bug that makes an endless loop of something must not take the memory of the machine.
BOUNDED_PYTEST = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
runpy.run_module("pytest", run_name="__main__")
"""


class Plant(NamedTuple):
    """One bug: the lines ``old`` of ``module`` are replaced by ``new``."""

    about: str  # the law, or the family of moves
    name: str
    module: str
    old: str
    new: str


class Verdict(NamedTuple):
    """What became of one plant: ``by`` names the test that caught it."""

    plant: Plant
    caught: bool
    by: str


def read_plants() -> list[Plant]:
    """All bugs; each is known to fit exactly one place of its module.

    Raises:
        SystemExit: one does not; it is named.
    """
    plants = []
    for block in re.split(r"^## ", BUGS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, *lines = block.splitlines()
        about, name, module = re.fullmatch(r"([\w ]+): (.+) \(([\w/]+\.py)\)", head).groups()
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line.startswith(sign)) for sign in "-+")
        found = f"\n{(PACKAGE / module).read_text(encoding='utf-8')}".count(f"\n{old}")
        if found != 1 or not old:
            raise SystemExit(
                f"the bug {name!r} fits {found} places of {module}; mend {BUGS.name}: it must fit exactly one"
            )
        plants.append(Plant(about, name, module, old, new))
    return plants


def one_of_each(plants: list[Plant], count: int = 2) -> list[Plant]:
    """The first few about each law and each family."""
    return [p for p in plants if [q for q in plants if q.about == p.about].index(p) < count]


def _run_tests(folder: Path, patterns: list[str], *more: str) -> tuple[int, str]:
    """Run the tests against the package in ``folder``; pytest's exit status and output."""
    tests = [str(path) for pattern in patterns for path in sorted(HERE.glob(pattern))]
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    if patterns is not GAME:
        options += ["-p", "no:hypothesispytest"]  # takes longer to import than those tests to run
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED_PYTEST, *options, *more, *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "CORE_GAME_SHRINKS": "0"},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _copy(folder: Path) -> None:
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))


def try_out(plant: Plant, *, machine: bool = False) -> Verdict:
    """Plant it in a copy and run the tests there: the quick ones first."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name)
        _copy(folder)
        target = folder / PACKAGE.name / plant.module
        text = "\n" + target.read_text(encoding="utf-8")
        target.write_text(text.replace(f"\n{plant.old}", f"\n{plant.new}")[1:], encoding="utf-8")
        for patterns in [GAME] if machine else [UNIT_TESTS, GAME]:
            try:
                status, output = _run_tests(folder, patterns)
            except subprocess.TimeoutExpired:
                return Verdict(plant, caught=True, by="the tests hung")
            failed = re.search(r"^FAILED \S*?([^/\s]+::\S+)", output, re.MULTILINE)
            if status == 1 and failed is not None:
                return Verdict(plant, caught=True, by=failed[1])
            if status < 0:  # an endless loop in it has taken all the memory that it may have
                return Verdict(plant, caught=True, by=f"the tests, which signal {-status} ended")
            if status != 0:
                raise SystemExit(f"the bug {plant.name!r} made no test fail, but broke the run ({status}):\n{output}")
    return Verdict(plant, caught=False, by="")


def try_sound_copy() -> None:
    """Without a bug the tests must pass, in the copy and not in the original; else everything would be 'caught'.

    Raises:
        SystemExit: they do not.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name)
        _copy(folder)
        probe = folder / "test_where.py"
        probe.write_text(
            "import resilient_exec.core.machine\n\n"
            f"def test_the_copy_is_tested():\n    assert resilient_exec.core.machine.__file__.startswith({name!r})\n"
        )
        for patterns in (UNIT_TESTS, GAME):
            status, output = _run_tests(folder, patterns, str(probe))
            if status != 0:
                raise SystemExit(f"the tests fail without any planted bug:\n{output}")


def try_all(plants: list[Plant], *, machine: bool = False, jobs: int = 2) -> list[Verdict]:
    """Try each, ``jobs`` at a time, and the sound copy too."""
    with ThreadPoolExecutor(jobs) as pool:
        sound = pool.submit(try_sound_copy)
        verdicts = list(pool.map(lambda plant: try_out(plant, machine=machine), plants))
        sound.result()
    return verdicts


def main(arguments: list[str] | None = None) -> int:
    """Try the chosen plants; 0 if all were caught."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("words", nargs="*", help="only bugs with one of these words in their law, family or name")
    parser.add_argument("--machine", action="store_true", help="play the random game only")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args(arguments)
    words = chosen.words or [""]
    plants = [p for p in read_plants() if any(word in f"{p.about}: {p.name}" for word in words)]
    verdicts = try_all(plants, machine=chosen.machine, jobs=chosen.jobs)
    for verdict in verdicts:
        print(f"{'caught  ' if verdict.caught else 'SURVIVED'}  {verdict.plant.about:12}  {verdict.plant.name}")
        print(f"{'':24}{verdict.by}")
    survived = [v.plant.name for v in verdicts if not v.caught]
    print(f"{len(verdicts) - len(survived)} of {len(verdicts)} planted bugs were caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
