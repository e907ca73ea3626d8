"""The program that Python processes are started with."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

__all__ = ["check_interpreter", "check_not_frozen", "interpreter"]

_PROBED = "RESILIENT_EXEC_PROBED"  # in the environment of a program that is asked whether it is a Python
_PROBE_TIMEOUT = 10.0  # s
_REMEDY = "multiprocessing.set_executable(...) names the Python interpreter to start them with"


def interpreter() -> str:
    """What ``multiprocessing.set_executable`` has named, else ``sys.executable``: ``""`` if there is neither.

    In a program that embeds Python ``sys.executable`` is that program.
    """
    spawn = sys.modules.get("multiprocessing.spawn")  # not imported: nobody has named one
    named = getattr(spawn, "get_executable", lambda: None)()
    return os.fsdecode(named) if named is not None else sys.executable or ""


def check_not_frozen() -> None:
    """Refuse a program that would start itself again, and again, in place of workers.

    Raises:
        RuntimeError: the program was frozen into one file, and no interpreter is named.
    """
    main = sys.modules.get("__main__")
    frozen = getattr(sys, "frozen", False) or hasattr(main, "__compiled__")
    if frozen and os.path.realpath(interpreter()) == os.path.realpath(sys.executable or ""):
        raise RuntimeError(
            f"this program is frozen (PyInstaller, cx_Freeze, Nuitka, ...): started with {sys.executable!r}, each "
            f"worker would be another run of it; {_REMEDY}"
        )
    if _PROBED in os.environ:
        raise RuntimeError(f"{sys.executable!r} was asked whether it is a Python interpreter, and ran this program")


def check_interpreter() -> None:
    """Refuse a start that cannot be: the trackers would die first, and each start fail for another reason.

    Raises:
        FileNotFoundError: there is no such program, or no working directory.
        RuntimeError: the program is no Python.
    """
    program = interpreter()
    if not os.path.isfile(program):
        raise FileNotFoundError(f"{program!r} is no program, and workers are started with it; {_REMEDY}")
    if not _is_python(program):
        raise RuntimeError(f"{program!r} is no Python interpreter, and workers are started with it; {_REMEDY}")
    if not _has_folder():
        raise FileNotFoundError(
            "the working directory of this process has been removed, and workers are started in it; "
            "os.chdir(...) to one that is there"
        )


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


@functools.cache
def _is_python(program: str) -> bool:
    """Return whether an executable is a Python, by its name, or, with another name, by running it."""
    name = os.path.basename(program).lower()
    if name.startswith(("python", "pypy", "graalpy")):
        return True
    try:
        asked = subprocess.run(
            [program, "-I", "-S", "-c", "print(6 * 7)"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT,
            env={**os.environ, _PROBED: "1"},
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.stdout.strip() == b"42"
