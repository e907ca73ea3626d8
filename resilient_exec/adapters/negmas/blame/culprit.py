"""Who was on stage in a failed attempt: by its stack if that shows a competitor's code, else by the worker's register.

The stack is searched from its innermost frame outwards for the first frame in a file that belongs to a competitor.
Frames of negmas, scml, the standard library and other packages belong to none.  A file belongs to the first of these:

* the competitors whose class is defined in it (of two in one file: the one whose code contains the line);
* the competitors that inherit from a class in it;
* the competitors in whose package it lies (of several in one package: the one with the nearest folder).

If the file belongs to several competitors, the agent that is noted in the register decides.  A competitor that runs
code that it inherits from another one is therefore blamed itself.  Only two kinds of threads are searched: the one that
runs the world, and those in which negmas calls negotiators with a time limit.  Other threads are searched only if
nobody is noted in the register.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, NamedTuple

from resilient_exec.adapters.negmas.blame.notes import LONGEST_TYPE, NOT_THEIRS, OnStage, parse_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from resilient_exec.model.dossier import AttemptReport

__all__ = ["FAULTS", "Source", "on_stage", "source_of"]

FAULTS = {"raised", "died", "timed_out", "out_of_memory", "not_sent"}
"""Outcomes of an attempt that an agent may have caused."""
_FRAME = re.compile(r'File "(?P<file>.+?)", line (?P<line>\d+),? in (?P<function>.+)')
_NOT_THEIRS = (*NOT_THEIRS, "builtins.")
_TASK_THREADS = (" in run_world_set", " in run_watched")
# Files of which a frame shows that negmas calls a negotiator in that thread: negmas' own, in newer versions, or ours.
_NEGOTIATORS_THREAD = (
    os.path.join("negmas", "helpers", "timeout.py"),
    os.path.join("adapters", "negmas", "blame", "entries.py"),
)
_STANDARD = tuple(os.path.join(sysconfig.get_paths()[name], "") for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages", "dist-packages")


class _Frame(NamedTuple):
    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Source:
    """Where the code of a competitor lies.

    Attributes:
        name: full name of its type.
        own: files that its class is defined in, as frames name them.
        inherited: files of the classes that it inherits from.
        package: the folder of its module; ``""`` if the module is in no package.
        top: the folder of its top-level package.
        spans: ``(file, first line, last line)`` of its own functions.
    """

    name: str
    own: frozenset[str] = frozenset()
    inherited: frozenset[str] = frozenset()
    package: str = ""
    top: str = ""
    spans: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)

    def defines(self, frame: _Frame) -> bool:
        """Whether the frame's line is in one of the functions of its class."""
        return any(file == frame.file and first <= frame.line <= last for file, first, last in self.spans)

    def depth(self, frame: _Frame) -> int:
        """Length of the path that its package and the frame's file have in common; 0: not in the same top package."""
        if not self.package or not os.path.isabs(frame.file) or _is_standard(frame.file):
            return 0
        common = os.path.commonpath([self.package, frame.file])
        return len(common) if f"{common}{os.sep}".startswith(f"{self.top}{os.sep}") else 0


def source_of(name: str) -> Source:
    """Where the code of the type of that full name lies.  Its module is not imported for this."""
    module_name, _, class_name = name.rpartition(".")
    if name.startswith(_NOT_THEIRS):
        return Source(name)
    module = sys.modules.get(module_name)
    kind = getattr(module, class_name, None)
    file = getattr(module, "__file__", None) or _find_file(module_name)
    package = os.path.dirname(file) if file and "." in module_name else ""
    top = package
    for _ in range(module_name.count(".") - (os.path.basename(file or "") != "__init__.py")):
        top = os.path.dirname(top)
    own = {file} if file else set()
    if not isinstance(kind, type):
        return Source(name, frozenset(own), package=package, top=top)
    spans = tuple(_spans(kind))
    bases = [base for base in kind.__mro__[1:] if not f"{base.__module__}.".startswith(_NOT_THEIRS)]
    inherited = {path for base in bases for path, _, _ in _spans(base) if not _is_standard(path)}
    return Source(name, frozenset(own | {path for path, _, _ in spans}), frozenset(inherited), package, top, spans)


def _is_standard(path: str) -> bool:
    return path.startswith(_STANDARD) and not any(part in path for part in _INSTALLED)


def _find_file(module_name: str) -> str | None:
    top, *rest = module_name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not rest:
        return spec.origin if spec is not None else None
    for folder in spec.submodule_search_locations or ():
        for ending in (".py", f"{os.sep}__init__.py"):
            path = os.path.join(folder, *rest) + ending
            if os.path.exists(path):
                return path
    return None


def _spans(kind: type) -> Iterator[tuple[str, int, int]]:
    for value in vars(kind).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, FunctionType):
            yield _span(function.__code__)


def _span(code: CodeType) -> tuple[str, int, int]:
    last = max((line for _, _, line in code.co_lines() if line is not None), default=code.co_firstlineno)
    inner = [_span(part)[2] for part in code.co_consts if isinstance(part, CodeType)]
    return code.co_filename, code.co_firstlineno, max([last, *inner])


def on_stage(attempts: Iterable[AttemptReport], sources: Sequence[Source]) -> tuple[OnStage, ...]:
    """Who was on stage in each attempt that failed, as far as that is known.

    Args:
        attempts: all attempts of the task.
        sources: of all types of agents in the world set.
    """
    found = []
    for attempt in attempts:
        if attempt.outcome in FAULTS:
            who = _find_on_stage(attempt, sources)
            if who is not None:
                found.append(replace(who, attempt=attempt.number, fault=attempt.outcome))
    return tuple(found)


def _find_on_stage(attempt: AttemptReport, sources: Sequence[Source]) -> OnStage | None:
    noted = _with_full_name(parse_note(attempt.note), sources)
    first, others = _split_threads(attempt.stacks)
    for frame in [*_frames(attempt.traceback, reverse=True), *first]:
        if who := _owner(frame, noted, sources):
            return who
    if noted is None:
        for frame in others:
            if who := _owner(frame, noted, sources):
                return who
    return noted


def _with_full_name(noted: OnStage | None, sources: Sequence[Source]) -> OnStage | None:
    """``noted`` with the full name of its type, if that was cut because it is too long for a note."""
    if noted is None or any(source.name == noted.competitor for source in sources):
        return noted
    full = [source.name for source in sources if source.name.startswith(noted.competitor)]
    return replace(noted, competitor=full[0]) if len(noted.competitor) == LONGEST_TYPE and len(full) == 1 else noted


def _owner(frame: _Frame, noted: OnStage | None, sources: Sequence[Source]) -> OnStage | None:
    """The one competitor that the frame's code belongs to; ``None``: there is none, or there are several."""
    registered = [source for source in sources if noted is not None and source.name == noted.competitor]
    names = [source.name for source in registered if frame.file in source.own | source.inherited]
    names = names or _owners(frame, sources)
    if len(names) > 1:
        names = [source.name for source in registered if source.name in names]
    if len(names) != 1:
        return None
    place = f"{os.path.basename(frame.file)}:{frame.line}"
    if noted is not None and noted.competitor == names[0]:
        return replace(noted, method=frame.function, known_by="stack", place=place)
    return OnStage(names[0], method=frame.function, known_by="stack", place=place)


def _owners(frame: _Frame, sources: Sequence[Source]) -> list[str]:
    own = [source for source in sources if frame.file in source.own]
    if len(own) > 1:
        own = [source for source in own if source.defines(frame)] or own
    owners = own or [source for source in sources if frame.file in source.inherited]
    if not owners:
        deepest = max((source.depth(frame) for source in sources), default=0)
        owners = [source for source in sources if deepest and source.depth(frame) == deepest]
    return [source.name for source in owners]


def _split_threads(stacks: str) -> tuple[list[_Frame], list[_Frame]]:
    """The frames of the threads in which the world runs, and those of all other threads; innermost first."""
    blocks = stacks.split("\n\n")
    world = [block for block in blocks if any(name in block for name in _TASK_THREADS)]
    world += [block for block in blocks if block not in world and any(path in block for path in _NEGOTIATORS_THREAD)]
    rest = [block for block in blocks if block not in world]
    return _frames("\n".join(world)), _frames("\n".join(rest))


def _frames(text: str, *, reverse: bool = False) -> list[_Frame]:
    frames = [_Frame(m["file"], int(m["line"]), m["function"].strip()) for m in _FRAME.finditer(text)]
    return frames[::-1] if reverse else frames
