"""How an interpreter of ours is started beside this one: with the same flags, and with no folder of the user's first.

``python -m`` and ``python -c`` look for modules in the current folder first: a ``random.py`` there would be imported in
place of the standard library's, and no process of ours would ever start.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from resilient_exec.process.executable import interpreter

__all__ = ["command", "fill_standard_descriptors"]

# The path that the interpreter has by itself goes first, without the current folder; behind it what this process has.
_PATH = "import sys; sys.path[:] = [e for e in sys.path if e]; sys.path += [e for e in {path!r} if e not in sys.path]; "


def command(code: str) -> list[str]:
    """The command line of an interpreter that runs ``code`` with this process's flags, and can import what it can."""
    path = [entry or os.curdir for entry in sys.path if isinstance(entry, str)]
    try:
        path = [os.path.abspath(entry) for entry in path]
    except FileNotFoundError:  # the current folder has been removed, and nothing can be imported from there
        path = [entry for entry in path if os.path.isabs(entry)]
    return [interpreter(), *_flags(), "-c", _PATH.format(path=path) + code]


def _flags() -> list[str]:
    """What this interpreter was started with: ``-O``, ``-W``, ``-X``, ``-E`` and the like."""
    # A private name, which multiprocessing uses for the same; -X of unknown names it leaves out.
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    for name, value in sys._xoptions.items():
        option = name if value is True else f"{name}={value}"
        if option not in flags:
            flags += ["-X", option]
    return flags


def fill_standard_descriptors() -> None:
    """Open the null device as descriptor 0, 1 or 2 where this process has none (a daemon), as daemons do.

    Else one of ours would be given that number, and a worker would print into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # the lowest that is free is this one
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
