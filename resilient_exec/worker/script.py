"""In the worker: import the script as ``__mp_main__``, as multiprocessing's spawn does.

The module is there under both names, ``__main__`` and ``__mp_main__``, before its code runs: what it pickles or looks
up meanwhile is found, and functions that it defines have the very names that tasks see.

With ``main="auto"`` a script whose import raises costs the tasks that need it, and no others: the worker goes on
without it, says why on its stderr, and calls of the script's functions fail with these words.
"""

from __future__ import annotations

import importlib.util
import linecache
import marshal
import sys
import traceback
from multiprocessing import process
from types import ModuleType

from resilient_exec.wire.script import IMPORTED, importing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from resilient_exec.wire.script import Script

__all__ = ["failed", "import_script"]

_former_mains: list[ModuleType] = []  # code in them may still run, and needs their globals


class _Failed:
    """Why the script is not here; ``""``: it is, or is not wanted."""

    words = ""


failed = _Failed()


def import_script(script: Script) -> bool:
    """Run the script's text as the module ``__mp_main__``; whether it is there now.

    Raises:
        BaseException: what the script raises, if it is required.
    """
    try:
        _import(script)
    except BaseException as error:
        if script.is_required:
            raise
        sys.modules["__main__"] = _former_mains.pop()
        del sys.modules[IMPORTED]
        text = " ".join(str(error).split())
        failed.words = f"the script {script.shown} could not be imported there: {type(error).__name__}: {text}"
        sys.stderr.write(f"resilient_exec: {failed.words}\n{traceback.format_exc()}")
        return False
    return True


def _import(script: Script) -> None:
    main = ModuleType(IMPORTED)
    main.__file__ = script.path
    main.__dict__.update(__cached__=None, __loader__=None, __package__="", __spec__=None)
    if script.module:
        _name_module(main, script.module)
    lines = script.source.splitlines(keepends=True)
    linecache.cache[script.path] = (len(script.source), None, lines, script.path)  # the file may be edited meanwhile
    code = marshal.loads(script.code)  # noqa: S302  the parent has made it, by this same interpreter
    _former_mains.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules[IMPORTED] = main
    current: Any = process.current_process()
    importing.path = script.path
    current._inheriting = True  # multiprocessing and loky then refuse to start processes, with words
    try:
        exec(code, main.__dict__)  # noqa: S102  an import runs the module
    finally:
        importing.path = ""
        del current._inheriting


def _name_module(main: ModuleType, name: str) -> None:
    """Give it what ``python -m`` gives: relative imports work by these."""
    spec = importlib.util.find_spec(name)  # imports the packages that it is in
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r} in sys.path of the worker", name=name)
    main.__dict__.update(__spec__=spec, __package__=spec.parent, __loader__=spec.loader, __cached__=spec.cached)
