"""Sets the stage for benchmarks: a Python with CPython gh-115634, a virtual environment, processes that leave no trace.

It prints what it does and raises `StageError` with the remedy when it cannot. It uses the standard library
only, so that a benchmark can start on a bare Python.

An interpreter is judged by what it does, not by its version: distributions carry patches. `PROBE` runs in it and
gives 24 calls to two workers with a limit of 3 calls each. An affected interpreter stops at 6, with no worker left.

Processes of one run are known by a mark in their environment, which every descendant inherits, also one that leaves
the process group or loses its parent. So "no worker is alive" can be seen, and nothing can be left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

STAMP = ".resilient-exec-environment.json"
"""Marks a folder as an environment made here: only such a folder (or an empty one) is ever removed."""

KNOWN_MINORS = (12, 11, 13)
"""Minor versions on which negmas 0.11.3 and scml 0.7.7 are known to install, best known first."""

PROBE_SECONDS = 60.0

MARK = "RESILIENT_EXEC_BENCHMARK"
"""Environment variable that all processes of one run carry; its value names the run."""

PROBE = """
import sys
if sys.version_info < (3, 11):
    sys.exit("older than Python 3.11: no max_tasks_per_child")
import ensurepip, json, os, time, venv
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

pool = ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn"), max_tasks_per_child=3)
# The first two calls are long enough for all to be submitted before one ends: nobody submits when the limit is met.
futures = [pool.submit(time.sleep, 0.5 if n < 2 else 0) for n in range(24)]
verdict, done, since = "unclear", -1, time.monotonic()
end = since + 40
while time.monotonic() < end:
    now_done = sum(f.done() for f in futures)
    if now_done == len(futures):
        verdict = "sound"
        break
    if now_done != done or pool._processes:
        done, since = now_done, time.monotonic()
    elif time.monotonic() - since > 3:
        verdict = "affected"
        break
    time.sleep(0.05)
for process in list(pool._processes.values()):
    process.kill()
version = ".".join(map(str, sys.version_info[:3]))
print(json.dumps(dict(verdict=verdict, done=now_done, of=len(futures), version=version, executable=sys.executable)))
sys.stdout.flush()
os._exit(0)  # a plain exit would join the hung pool
"""


class StageError(Exception):
    """The stage could not be set; the message names the remedy."""


@dataclass(frozen=True)
class Interpreter:
    """A Python as the probe saw it; `verdict` is "affected", "sound", "unclear" or why it could not be probed."""

    path: str
    version: str
    verdict: str
    done: int = 0
    of: int = 0

    @property
    def affected(self) -> bool:
        """Whether the probe hung with no worker left."""
        return self.verdict == "affected"

    def __str__(self) -> str:
        if self.verdict in {"affected", "unclear"}:
            return f"Python {self.version} ({self.path}): {self.verdict}, {self.done} of {self.of} calls done"
        return f"Python {self.version or '?'} ({self.path}): {self.verdict}"


def candidates() -> Iterator[str]:
    """Paths of interpreters worth a probe: this one, those on PATH, those of pyenv."""
    seen: set[str] = set()
    for path in _all_candidates():
        real = os.path.realpath(path)
        # A pyenv shim is a script that may lead nowhere; the versions themselves come last in the list.
        if os.access(path, os.X_OK) and real not in seen:
            seen.add(real)
            yield path


def _all_candidates() -> Iterator[str]:
    if sys.version_info[1] in KNOWN_MINORS:
        yield sys.executable
    for minor in KNOWN_MINORS:
        found = shutil.which(f"python3.{minor}")
        if found:
            yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for minor in KNOWN_MINORS:
        yield from (str(path) for path in sorted(root.glob(f"versions/3.{minor}.*/bin/python3.{minor}")))


def probe(path: str) -> Interpreter:
    """Run `PROBE` in the interpreter at `path`; a failure to do so is a verdict too."""
    try:
        code, out, error = run_group([path, "-c", PROBE], PROBE_SECONDS)
    except OSError as problem:
        return Interpreter(path, "", f"does not start ({problem})")
    if code != 0:
        last = (error.strip().splitlines() or ["no message"])[-1]
        return Interpreter(path, "", f"cannot be probed (exit status {code}: {last.strip()[:200]})")
    try:
        seen: dict[str, Any] = json.loads(out)
    except ValueError:
        return Interpreter(path, "", f"cannot be probed (it printed {out[:200]!r})")
    return Interpreter(seen["executable"], seen["version"], seen["verdict"], seen["done"], seen["of"])


def run_group(command: list[str], seconds: float, **options: Any) -> tuple[int | None, str, str]:
    """Run a command in a process group of its own; status None means: time ran out, and the whole group was killed."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        **options,
    )
    try:
        out, error = process.communicate(timeout=seconds)
        return process.returncode, out, error
    except subprocess.TimeoutExpired:
        return None, "", f"not finished after {seconds:.0f} s"
    finally:
        # Only while the leader is not reaped does its number belong to this group for certain.
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resilient-exec" / "environments"


def find_environment(
    asked: str | None, requirements: tuple[str, ...], checkout: Path, folder: Path | None, *, fresh: bool
) -> tuple[Interpreter, Path]:
    """The first affected Python that can make the environment, and the environment's own; only `asked`, if given."""
    if folder:
        _refuse_foreign(folder)
    failed = set()
    for path in [asked] if asked else candidates():
        found = probe(path)
        print(found, flush=True)
        if found.affected and found.path not in failed:
            try:
                return found, make_environment(found, requirements, checkout, folder, fresh=fresh)
            except StageError as problem:
                failed.add(found.path)
                print(f"no environment with it: {problem}", flush=True)
    if failed:
        raise StageError("an affected Python was found, but no environment could be made: see above")
    subject = f"{asked} is not" if asked else "no Python here is"
    raise StageError(
        f"{subject} affected by CPython gh-115634, so there is no hang to show: "
        "name a Python that is (3.11, 3.12 or 3.13) with --python"
    )


def make_environment(
    python: Interpreter,
    requirements: tuple[str, ...],
    checkout: Path | None,
    folder: Path | None = None,
    *,
    fresh: bool,
    name: str = "deadlock",
    bare: tuple[str, ...] = (),
) -> Path:
    """Return the Python of a virtual environment with `requirements` and, if given, the package at `checkout`.

    What `bare` names is installed without what it depends on. A finished environment of the same interpreter,
    requirements and package source is used again. One whose package source has changed gets the package anew.
    """
    key = _digest(python.path, python.version, *requirements, *bare)
    folder = (folder or cache_folder() / f"{name}-py{python.version}-{key[:10]}").resolve()
    executable = folder / "bin" / "python"
    wanted = {"key": key, "source": source_digest(checkout) if checkout else "", "complete": True}
    stamp = _read_stamp(folder)
    if not fresh and stamp == wanted and executable.exists():
        print(f"environment: {folder} (made earlier; --fresh remakes it)")
        return executable
    if fresh or stamp is None or stamp["key"] != key or not stamp["complete"]:
        _create(python, folder, key)
    write_json(folder / STAMP, wanted | {"complete": False})
    what = [*requirements, *([str(checkout)] if checkout else [])]
    print(f"environment: installing {', '.join([*what, *bare])} (a minute or two the first time)")
    _pip_install(executable, what)
    if bare:
        _pip_install(executable, ["--no-deps", *bare])
    write_json(folder / STAMP, wanted)
    return executable


def source_digest(checkout: Path) -> str:
    """A digest of what an installation of the checkout would contain."""
    if not (checkout / "pyproject.toml").is_file():
        raise StageError(f"{checkout} has no pyproject.toml: run this script from a checkout of resilient_exec")
    files = [checkout / "pyproject.toml", *sorted((checkout / "resilient_exec").rglob("*.py"))]
    return _digest(*(part for file in files for part in (str(file.relative_to(checkout)), file.read_text())))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read_stamp(folder: Path) -> dict[str, Any] | None:
    try:
        stamp: dict[str, Any] = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None
    return stamp if {"key", "source", "complete"} <= stamp.keys() else None


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder / STAMP).exists() and any(folder.iterdir()):
        raise StageError(
            f"{folder} exists, is not empty and was not made here, so it is not touched: name another folder with --env"
        )


def _create(python: Interpreter, folder: Path, key: str) -> None:
    _refuse_foreign(folder)
    if folder.exists():
        shutil.rmtree(folder)
    print(f"environment: making {folder}")
    folder.mkdir(parents=True)
    write_json(folder / STAMP, {"key": key, "source": "", "complete": False})
    code, out, error = run_group([python.path, "-m", "venv", str(folder)], 300.0, env=clean_environment())
    if code != 0:
        raise StageError(f"{python.path} -m venv failed:\n{out}{error}\nname another Python with --python")


def _pip_install(executable: Path, what: list[str]) -> None:
    command = [str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    code, out, error = run_group(command, 1800.0, env=clean_environment())
    if code != 0:
        last = "\n".join((out + error).strip().splitlines()[-20:])
        raise StageError(f"pip install failed:\n{last}\nis the package index reachable? Try again with --fresh")


def clean_environment() -> dict[str, str]:
    """This process's environment variables without those that would let other Python code slip in."""
    banned = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in banned}


def start_marked(command: list[str], folder: Path, mark: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in `folder`, marked, in a session of its own, with its output in `folder`/output.txt."""
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment() | variables | {MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def processes_of(mark: str) -> dict[int, str]:
    """Pid and command line of all living processes that carry a run's mark (a zombie has no environment any more)."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process may end while it is read; another user's can't be read.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode(errors="replace").strip()
    return found


def end_processes(mark: str) -> int:
    """Kill what is left of a run and wait until nothing is; return how many there were."""
    seen: set[int] = set()
    deadline = time.monotonic() + 30
    while alive := processes_of(mark):
        seen |= alive.keys()
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {sorted(alive)} do not end after SIGKILL")
        time.sleep(0.05)
    return len(seen)


def write_json(file: Path, data: dict[str, Any]) -> None:
    """Write so that a reader sees the old or the new content, never a part."""
    new = file.with_name(file.name + ".new")
    new.write_text(json.dumps(data, indent=1))
    new.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """What `write_json` wrote; empty before it did."""
    data: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return data
