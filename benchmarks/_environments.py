"""Sets up what benchmarks need: an affected Python, virtual environments, and processes of which none is left behind.

It prints what it does, and raises `SetupError` with the remedy if something fails. It uses the standard library
only, so that a benchmark can be started by a Python without packages.

Whether an interpreter is affected by CPython gh-115634 is tested, and not concluded from its version, since
distributions carry patches. `PROBE` runs in it and gives 24 calls to two workers with a limit of 3 calls each. An
affected interpreter stops after 6 calls, with no worker left.

The processes of one run are found by a mark in their environment, which all descendants inherit, also those that leave
the process group or lose their parent. So it can be verified that no worker is alive, and everything can be killed.
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
"""File in each environment that was made here: only such a folder (or an empty one) is ever removed."""

KNOWN_MINORS = (12, 11, 13)
"""Minor versions on which negmas 0.11.3 and scml 0.7.7 are known to install; the first ones are tried first."""

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
# The first two calls are long enough for all to be submitted before one ends, so that no submit() follows the limit.
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


class SetupError(Exception):
    """The setup failed; the message names the remedy."""


@dataclass(frozen=True)
class Interpreter:
    """A Python and the result of its probe.

    Attributes:
        path: of the executable.
        version: such as "3.12.1".
        verdict: "affected", "sound", "unclear", or why it could not be probed.
        done: calls that ended in the probe.
        of: calls that were submitted in the probe.
    """

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
    """Paths of interpreters to probe: this one, those on PATH, those of pyenv."""
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
    """Run `PROBE` in the interpreter at `path`; if that fails, the verdict says why."""
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
    """Run a command in a process group of its own.

    Returns:
        Exit status, stdout and stderr; status None if it took longer than `seconds`, and the whole group was killed.
    """
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
        # The group's number is certain to be this group's only as long as its leader has not been reaped.
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
    """The first affected Python with which the environment can be made, and the path of the environment's Python.

    Args:
        asked: the only Python to try; None: all candidates.
        requirements: for pip.
        checkout: of this package, which is installed, too.
        folder: of the environment; None: one in the cache folder.
        fresh: whether to make the environment anew.

    Raises:
        SetupError: there is none.
    """
    if folder:
        _refuse_foreign(folder)
    failed = set()
    for path in [asked] if asked else candidates():
        found = probe(path)
        print(found, flush=True)
        if found.affected and found.path not in failed:
            try:
                return found, make_environment(found, requirements, checkout, folder, fresh=fresh)
            except SetupError as problem:
                failed.add(found.path)
                print(f"no environment with it: {problem}", flush=True)
    if failed:
        raise SetupError("an affected Python was found, but no environment could be made: see above")
    subject = f"{asked} is not" if asked else "no Python here is"
    raise SetupError(
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

    What `bare` names is installed without its dependencies. A finished environment of the same interpreter,
    requirements and package source is used again. If only the package source has changed, the package is installed
    again.

    Raises:
        SetupError: the environment cannot be made, or pip has failed.
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
    """A digest of all files that an installation of the checkout would contain."""
    if not (checkout / "pyproject.toml").is_file():
        raise SetupError(f"{checkout} has no pyproject.toml: run this script from a checkout of resilient_exec")
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
        raise SetupError(
            f"{folder} exists, is not empty and was not made here, so it is not touched: name another folder with --env"
        )


def _create(python: Interpreter, folder: Path, key: str) -> None:
    _refuse_foreign(folder)
    if folder.exists():
        shutil.rmtree(folder)
    print(f"environment: making {folder}")
    folder.mkdir(parents=True)
    write_json(folder / STAMP, {"key": key, "source": "", "complete": False})
    command = [python.path, "-m", "venv", str(folder)]
    code, _, _ = run_group(command, 300.0, env=clean_environment())
    if code == 0:
        return
    # Debian's Pythons come without ensurepip.
    code, out, error = run_group([*command, "--clear", "--without-pip"], 300.0, env=clean_environment())
    if code != 0:
        raise SetupError(f"{python.path} -m venv failed:\n{out}{error}\nname another Python")
    write_json(folder / STAMP, {"key": key, "source": "", "complete": False})


def _pip_of(executable: Path) -> list[str]:
    """The command of a pip that installs into the environment of `executable`, which may have none of its own."""
    own = [str(executable), "-m", "pip"]
    if run_group([*own, "--version"], 60.0, env=clean_environment())[0] == 0:
        return own
    lender = cache_folder() / f"pip-py{sys.version_info[0]}.{sys.version_info[1]}" / "bin" / "python"
    pip = [str(lender), "-m", "pip"]
    upgrade = [*pip, "install", "--quiet", "--upgrade", "pip"]  # an old one does not know the newest Pythons
    for command in ([sys.executable, "-m", "venv", str(lender.parents[1])], upgrade):
        code, out, error = run_group(command, 300.0, env=clean_environment())
        if code != 0:
            raise SetupError(f"{executable} has no pip, and none could be lent: {' '.join(command)}:\n{out}{error}")
    return [*pip, "--python", str(executable)]


def _pip_install(executable: Path, what: list[str]) -> None:
    command = [*_pip_of(executable), "install", "--quiet", "--disable-pip-version-check", *what]
    code, out, error = run_group(command, 1800.0, env=clean_environment())
    if code != 0:
        last = "\n".join((out + error).strip().splitlines()[-20:])
        raise SetupError(f"pip install failed:\n{last}\nis the package index reachable? Try again with --fresh")


def clean_environment() -> dict[str, str]:
    """This process's environment variables, without those by which a Python imports other code."""
    banned = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in banned}


def start_marked(command: list[str], folder: Path, mark: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command with the mark, in `folder` and in a session of its own; its output goes to output.txt there."""
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
    """Command lines of all living processes with a run's mark, by pid; zombies have no environment and are omitted."""
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
    """Kill all processes of a run and wait until none is left; return how many there were.

    Raises:
        RuntimeError: some are still alive 30 s later.
    """
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
    """Write a file so that a reader sees the old or the new content, and never a part of it."""
    new = file.with_name(file.name + ".new")
    new.write_text(json.dumps(data, indent=1))
    new.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """What `write_json` has written; empty if the file does not exist yet."""
    data: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return data
