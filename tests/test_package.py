"""What the package promises as a whole: light to import, every public name there and documented."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resilient_exec

ROOT = Path(__file__).resolve().parent.parent

DOOR = [
    "AttemptError",
    "AttemptReport",
    "Dossier",
    "Event",
    "InternalError",
    "MemoryLimitExceeded",
    "NotSendable",
    "PoolBroken",
    "PoolClosed",
    "ResilientError",
    "ResilientFuture",
    "ResilientPool",
    "RetryPolicy",
    "Settled",
    "SoftTimeout",
    "TaskContext",
    "TaskKilled",
    "TaskStory",
    "TaskTimeout",
    "WorkerDied",
    "get_reusable_pool",
    "task_context",
]
LOADED = """
import sys
before = set(sys.modules)
import resilient_exec
heavy = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(heavy))
"""


def test_importing_the_package_loads_no_third_party_module():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['resilient_exec']"


@pytest.mark.parametrize("name", resilient_exec.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(resilient_exec, name))


def test_a_name_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="no_such_name"):
        resilient_exec.no_such_name


def test_dir_shows_the_public_names():
    assert set(resilient_exec.__all__) <= set(dir(resilient_exec))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "resilient_exec").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_module_says_its_job_in_its_first_line_and_keeps_to_the_size_of_one(path):
    source = path.read_text()
    assert re.match(r'"""\S.*\S', source), "the first line of a module's docstring is its job"
    # One that has to be longer says so at its top, and why.
    assert len(source.splitlines()) <= 400 or "Longer than 400 lines: " in (ast.get_docstring(ast.parse(source)) or "")


def test_no_function_is_longer_than_sixty_lines():
    long = []
    for path in (ROOT / "resilient_exec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                long.append(f"{path.name}:{node.lineno} {node.name}")
    assert not long


def test_what_users_may_import_is_pinned():
    """One door: these names, and the adapters; whoever adds one to it says so here."""
    assert sorted(resilient_exec.__all__) == DOOR


@pytest.mark.parametrize("name", DOOR)
def test_pickles_of_errors_and_events_name_the_public_door(name):
    public = getattr(resilient_exec, name)
    if name == "Event" or (isinstance(public, type) and issubclass(public, BaseException)):
        assert (public.__module__, public.__qualname__) == ("resilient_exec", name)
        assert pickle.loads(pickle.dumps(public)) is public
