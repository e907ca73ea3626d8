"""The script's own module: whether workers import the parent's ``__main__``, and what of it they then have.

multiprocessing's spawn imports the script in each worker, under the name ``__mp_main__``; cloudpickle sends what lives
in ``__main__`` by value, and the script's top level never runs in a worker.  Imported, an initializer may set a
global that tasks read, settings at the top hold, cached functions and locks are there, and a call is small.  But an
unguarded script would run again in each worker, and a notebook has no file to import.  So by default a script is
imported if it has a guard at its top level, ``if __name__ == "__main__":``, and all its pools were made behind it.

What is sent by reference is only what the imported module has for certain: a name bound at the top level outside the
guard, whose functions are those that this very text compiles to.  All else of ``__main__`` still goes by value.

The text is read once, when the pool is made, and sent to the workers: a script that is edited while it runs does not
change the workers that are started later.
"""

from __future__ import annotations

import os
import sys
import weakref
from types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType, ModuleType
    from typing import Any, Protocol

    from resilient_exec.wire.outline import Outline

    class Known(Protocol):
        """What the other side has of ``__main__``."""

        def __hash__(self) -> int:
            """Picklers are made once for each."""

        def has(self, thing: Any) -> bool:
            """Whether it has this function or class of ``__main__`` as it is here."""


__all__ = [
    "IMPORTED",
    "MAIN_NAMES",
    "OF_THE_WORKER",
    "Known",
    "Script",
    "check_not_importing",
    "find_script",
    "importing",
]

IMPORTED = "__mp_main__"
MAIN_NAMES = frozenset({"__main__", IMPORTED})
_in_front: weakref.WeakSet[ModuleType] = weakref.WeakSet()  # those that have made a pool in front of their guard
_MOST_KNOWN = 10_000  # objects of which it is remembered whether workers have them


class _Importing:
    """Which script this process, a worker, is importing at the moment."""

    path = ""


importing = _Importing()


def check_not_importing() -> None:
    """Refuse to give work to a pool while a worker imports the script: each of its workers would do so again.

    Raises:
        RuntimeError: this process is a worker that is importing the script.
    """
    if importing.path:
        raise RuntimeError(
            f"a worker is importing the script {importing.path!r}, whose top level submits a task: put what only the "
            'program itself is to do behind `if __name__ == "__main__":`, or make the pool with main="value"'
        )


class _OfTheWorker:
    """What a worker that has imported the script has of it, the parent has."""

    def has(self, thing: Any) -> bool:
        return _is_bound(thing)


OF_THE_WORKER = _OfTheWorker()


class Script:
    """A script that workers import.

    Attributes:
        module: its name for ``import``, where it was started with ``-m``; else empty.
        path: its file.
        source: its text.
        code: what that compiles to, as :mod:`marshal` has it, so that not each worker compiles it; empty in the parent.
        is_required: whether a worker in which its import raises is of no use; else tasks of modules go on there.
    """

    # Not a dataclass: what makes those takes a forkserver 6 ms to import.
    def __init__(self, module: str, path: str, source: str, is_required: bool = False, code: bytes = b"") -> None:  # noqa: FBT001, FBT002
        self.module, self.path, self.source, self.is_required, self.code = module, path, source, is_required, code
        self._known: dict[int, tuple[Any, bool]] = {}

    def _all(self) -> tuple[str, str, str, bool]:
        return self.module, self.path, self.source, self.is_required

    def __reduce__(self) -> tuple[Any, ...]:
        import marshal

        from resilient_exec.wire.outline import outline_of  # as it has been asked for before

        return Script, (*self._all(), marshal.dumps(outline_of(self.source, self.path).code))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Script) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    @property
    def shown(self) -> str:
        """What its user calls it."""
        return f"python -m {self.module}" if self.module else repr(self.path)

    def has(self, thing: Any) -> bool:
        """Whether a worker that has imported it has this function or class of ``__main__`` as it is here."""
        if not _is_bound(thing):
            return False
        known = self._known.get(id(thing))
        if known is not None and known[0]() is thing:
            return known[1]
        from resilient_exec.wire.outline import outline_of  # workers do without it

        paths = {self.path, vars(sys.modules["__main__"]).get("__file__")}
        result = _is_from(outline_of(self.source, self.path), thing, paths)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[id(thing)] = (weakref.ref(thing), result)
        return result


def find_script(mode: str) -> Script | None:
    """The script that the workers of a pool are to import; ``None``: what lives in ``__main__`` goes by value.

    Args:
        mode: ``"auto"``, ``"import"`` or ``"value"``, as ``ResilientPool(main=...)``.

    Raises:
        ValueError: ``mode`` is ``"import"``, and there is nothing to import.
    """
    main = sys.modules.get("__main__")
    if mode == "value" or main is None:
        return None
    try:
        script = _script_of(main)
        script.is_required = mode == "import"
        from resilient_exec.wire.outline import outline_of  # workers do without it, and so does who has no script

        outline = outline_of(script.source, script.path)
    except (LookupError, OSError, ValueError, SyntaxError, ImportError) as error:
        if mode == "import":
            raise ValueError(
                f'main="import" needs a script or module that workers can import: {error}; '
                'main="auto" sends what lives in __main__ by value then'
            ) from error
        return None
    if mode == "auto" and (_is_command(script, outline) or not _stands_behind(outline, main, script.path)):
        return None
    if sys.modules.get(IMPORTED) is not main:  # as multiprocessing does: results name their classes so
        sys.modules[IMPORTED] = main
    return script


def _script_of(main: ModuleType) -> Script:
    spec = getattr(main, "__spec__", None)
    name = getattr(spec, "name", None)
    if spec is not None and name and name != "__main__":
        source = spec.loader.get_source(name) if hasattr(spec.loader, "get_source") else None
        if source is None:
            raise LookupError(f"the module {name!r} has no source")
        return Script(name, spec.origin or getattr(main, "__file__", None) or name, source)
    path = getattr(main, "__file__", None)
    if getattr(sys, "frozen", False) or not isinstance(path, str):
        raise LookupError("__main__ has no file (an interactive session, a notebook, -c, standard input)")
    if name:
        raise LookupError(f"a folder or an archive is run, {os.path.dirname(path) or path!r}")
    path = os.path.abspath(path)
    import importlib.util

    with open(path, "rb") as file:
        return Script("", path, importlib.util.decode_source(file.read()))


def _is_command(script: Script, outline: Outline) -> bool:
    """Whether it only starts what is in modules, as installed commands (``pytest``) and ``__main__`` of packages do."""
    if outline.does_more:
        return False
    if script.module.endswith(".__main__"):
        return True
    folder = os.path.realpath(os.path.dirname(script.path))
    if os.path.basename(folder).lower() not in ("bin", "scripts"):  # whatever the scheme of the installation
        return False
    import sysconfig  # which may take some ms to find out

    return folder == os.path.realpath(sysconfig.get_path("scripts"))


def _stands_behind(outline: Outline, main: ModuleType, path: str) -> bool:
    """Whether it has a guard, and its top level, if that still runs, is behind it, and was whenever it made a pool."""
    if not outline.guards or main in _in_front:
        return False
    paths = {path, vars(main).get("__file__")}
    for thread in (sys._getframe(), sys._current_frames().get(_main_thread())):
        for top in filter(_is_top, _outwards(thread)):
            if top.f_globals is not vars(main):
                if main.__name__ == "__main__":
                    return False  # a tracer or the like runs the script, and is ``__main__`` itself
                break
            if top.f_code.co_filename not in paths:
                continue  # an ``exec`` in it, or a session behind it
            if not outline.is_guarded(top.f_lineno):
                _in_front.add(main)
                return False
            break
    return True


def _is_top(frame: FrameType) -> bool:
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in MAIN_NAMES


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _main_thread() -> int:
    import threading

    return threading.main_thread().ident or 0


def globals_stored(function: Any) -> list[str]:
    """The global variables that a function of ``__main__`` sets, by its code: sent by value, it sets its own."""
    if type(function) is not FunctionType or function.__module__ not in MAIN_NAMES:
        return []
    import dis

    from resilient_exec.wire.outline import codes_in

    found: set[str] = set()
    for code in (function.__code__, *codes_in(function.__code__)):
        found.update(step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL")
    return sorted(found)


# -- what workers have -----------------------------------------------------------------------------------------------


def _is_bound(thing: Any) -> bool:
    """Whether ``__main__`` has it under its own name."""
    holder: Any = sys.modules.get("__main__")
    try:
        for name in thing.__qualname__.split("."):
            holder = getattr(holder, name)
    except AttributeError:
        return False
    return holder is thing


def _is_from(outline: Outline, thing: Any, paths: set[str | None]) -> bool:
    if thing.__qualname__.partition(".")[0] not in outline.names:
        return False
    if thing.__qualname__ in outline.plain and type(thing) is FunctionType:
        return thing.__code__ in outline.codes.get(thing.__qualname__, ())
    functions = [thing] if type(thing) is FunctionType else _methods(thing)
    return all(_is_in(outline, function.__code__, paths) for function in functions)


def _methods(cls: type) -> Iterator[FunctionType]:
    for entry in list(type.__getattribute__(cls, "__dict__").values()):
        function = entry.__func__ if type(entry) in (staticmethod, classmethod) else entry
        if type(function) is FunctionType:
            yield function


def _is_in(outline: Outline, code: CodeType, paths: set[str | None]) -> bool:
    """Whether the script's text has it; code of elsewhere (a decorator's, a generated method's) counts as there."""
    if code.co_filename not in paths:
        # What was typed into a session behind the script is nowhere; what a library made is made there, too.
        return not code.co_filename.startswith(("<stdin", "<python-input", "<ipython-input"))
    return code in outline.codes.get(code.co_qualname, ())
