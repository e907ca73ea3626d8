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

import ast
import dis
import functools
import importlib.util
import os
import sys
import sysconfig
import weakref
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

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


class Known(Protocol):
    """What the other side has of ``__main__``."""

    def __hash__(self) -> int:
        """Picklers are made once for each."""

    def has(self, thing: Any) -> bool:
        """Whether it has this function or class of ``__main__`` as it is here."""


class _OfTheWorker:
    """What a worker that has imported the script has of it, the parent has."""

    def has(self, thing: Any) -> bool:
        return _is_bound(thing)


OF_THE_WORKER = _OfTheWorker()


@dataclass(frozen=True)
class Outline:
    """What a script's text says about its top level.

    Attributes:
        guards: first and last line of each block that only the program itself runs, not who imports it.
        names: what is bound outside of them, and not in them.
        plain: those of them that are functions without a decorator.
        does_more: whether anything but imports stands outside of them.
        codes: the code of each function and class, by its qualified name.
    """

    guards: tuple[tuple[int, int], ...]
    names: frozenset[str]
    plain: frozenset[str]
    does_more: bool
    codes: dict[str, list[CodeType]]

    def is_guarded(self, line: int) -> bool:
        """Whether that line is behind a guard."""
        return any(first <= line <= last for first, last in self.guards)


@dataclass(frozen=True)
class Script:
    """A script that workers import.

    Attributes:
        module: its name for ``import``, where it was started with ``-m``; else empty.
        path: its file.
        source: its text.
    """

    module: str
    path: str
    source: str = field(repr=False)
    _known: dict[int, tuple[Any, bool]] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Script, (self.module, self.path, self.source)

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
        result = _is_from(
            _outline(self.source, self.path), thing, {self.path, vars(sys.modules["__main__"]).get("__file__")}
        )
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
        outline = _outline(script.source, script.path)
    except (LookupError, OSError, ValueError, SyntaxError, ImportError) as error:
        if mode == "import":
            raise ValueError(
                f'main="import" needs a script or module that workers can import: {error}; '
                'main="auto" sends what lives in __main__ by value then'
            ) from error
        return None
    if mode == "auto" and (_is_command(script, outline) or not _stands_behind(outline, main)):
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
    with open(path, "rb") as file:
        return Script("", path, importlib.util.decode_source(file.read()))


def _is_command(script: Script, outline: Outline) -> bool:
    """Whether it only starts what is in modules, as installed commands (``pytest``) and ``__main__`` of packages do."""
    if outline.does_more:
        return False
    folder = os.path.realpath(os.path.dirname(script.path))
    return script.module.endswith(".__main__") or folder == os.path.realpath(sysconfig.get_path("scripts"))


def _stands_behind(outline: Outline, main: ModuleType) -> bool:
    """Whether it has a guard, and its top level, if that still runs, is behind it, and was whenever it made a pool."""
    if not outline.guards or main in _in_front:
        return False
    for thread in (sys._getframe(), sys._current_frames().get(_main_thread())):
        top = next(filter(_is_top, _outwards(thread)), None)
        if top is None:
            continue
        if top.f_globals is vars(main):
            if not outline.is_guarded(top.f_lineno):
                _in_front.add(main)
                return False
        elif main.__name__ == "__main__":
            return False  # a tracer or the like runs the script, and is ``__main__`` itself
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
    found: set[str] = set()
    for code in (function.__code__, *_codes(function.__code__)):
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


# -- the outline of a text -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _outline(source: str, path: str) -> Outline:
    tree = ast.parse(source, path)
    scan = _Scan()
    scan.block(tree.body, guarded=False)
    codes: dict[str, list[CodeType]] = {}
    for code in _codes(compile(source, path, "exec", dont_inherit=True)):
        codes.setdefault(code.co_qualname, []).append(code)
    names = frozenset(scan.outside - scan.inside)
    return Outline(tuple(scan.guards), names, frozenset(scan.plain), scan.does_more, codes)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


class _Scan:
    """Goes through the statements of a module's top level."""

    def __init__(self) -> None:
        self.guards: list[tuple[int, int]] = []
        self.outside: set[str] = set()
        self.inside: set[str] = set()
        self.plain: set[str] = set()
        self.does_more = False

    def block(self, body: list[ast.stmt], *, guarded: bool) -> None:
        for statement in body:
            self._statement(statement, guarded=guarded)

    def _statement(self, statement: ast.stmt, *, guarded: bool) -> None:
        if isinstance(statement, ast.If):
            behind = guard_of(statement.test)
            if not guarded and behind is not None:
                self._guard(statement, behind=behind)
                return
        self._bind(statement, self.inside if guarded else self.outside)
        is_plain = isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement)
        self.does_more = self.does_more or not (guarded or is_plain)
        for inner in _blocks(statement):
            self.block(inner, guarded=guarded)

    def _guard(self, statement: ast.If, *, behind: bool) -> None:
        """An ``if`` of which one block is only the program's own: the first, if ``behind``, else the other."""
        for body, guarded in ((statement.body, behind), (statement.orelse, not behind)):
            if guarded and body:
                self.guards.append((statement.lineno if behind else body[0].lineno, body[-1].end_lineno or 0))
            self.block(body, guarded=guarded)

    def _bind(self, statement: ast.stmt, names: set[str]) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
            if isinstance(statement, ast.FunctionDef) and not statement.decorator_list:
                self.plain.add(statement.name)
            else:
                self.plain.discard(statement.name)
            return
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
            return
        blocks = {id(inner) for body in _blocks(statement) for inner in body}
        waiting: list[ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                names.add(node.id)
            elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                # What is changed behind the guard is not what workers have; outside it is changed there, too.
                if names is self.inside:
                    names.update(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                names.add(node.name)
            waiting += [inner for inner in ast.iter_child_nodes(node) if id(inner) not in blocks]


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of a compound statement that are run with the module's own names."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield part.body


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def guard_of(test: ast.expr) -> bool | None:
    """Whether the test holds in the program itself alone (``True``) or where it is imported alone (``False``)."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return True if any(guard_of(part) is True for part in test.values) else None
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = guard_of(test.operand)
        # `not (name is main and x)` may hold in the program, too.
        return None if inner is None or isinstance(test.operand, ast.BoolOp) else not inner
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    sides = (test.left, test.comparators[0])
    is_name = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    is_main = any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
    if is_name and is_main and isinstance(test.ops[0], ast.Eq | ast.NotEq):
        return isinstance(test.ops[0], ast.Eq)
    return None
