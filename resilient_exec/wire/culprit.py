"""Where in an object the part is that does not pickle: ``agent._logger._lock``, and what to do about it.

Pickling names the type that it fails at and not the place.  The place is found by pickling each part by itself (see
:mod:`reduction`), the nearest first and each once, so that cycles end and the path is the shortest.  The path reads
as the expression that leads there, as far as there is one; ``closure variable 'x' of ...`` is for what only words
can lead to.

The walk is bounded in parts and in time, and of what the user's methods raise only a ``KeyboardInterrupt`` passes.
"""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, NamedTuple

from resilient_exec.wire.reduction import Label, opener, quietly

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["FLATTEN", "Culprit", "find", "find_nesting", "remedy"]

FLATTEN = "hold its parts in one flat list, and have them refer to each other by index"

_MOST_PARTS = 200_000
_MOST_SECONDS = 2.0
_ONE_BY_ONE = 256  # parts of one container between two looks at the clock
_DEEP = 200  # steps of nesting; pickling stands more than this, but not much where Python's stack is its limit
_SHOWN_STEPS = 4  # of a nesting that is too deep
_LONGEST_PATH = 240

_LIST = "send a list of what it yields"
_ASYNC = "run it where it is made, by asyncio.run(...): a task is a plain function"
_OPEN_THERE = "send its name or address, and open it in the worker"
_REMEDIES = {
    "_io._IOBase": _OPEN_THERE,
    "_socket.socket": _OPEN_THERE,
    "sqlite3.Connection": _OPEN_THERE,
    "sqlite3.Cursor": _OPEN_THERE,
    "mmap.mmap": _OPEN_THERE,
    "builtins.generator": _LIST,
    "builtins.async_generator": _LIST,
    "builtins.coroutine": _ASYNC,
}
_SHARED = (
    "give it to each worker when that starts, by initializer= and initargs= (locks and what has some: from "
    'multiprocessing.get_context("spawn")), or use one of a multiprocessing.Manager()'
)
_WHAT_IS_IN_IT = "return what is in it, or what was read from it"
_INHERITANCE = "shared between processes through inheritance"  # as multiprocessing says it
_IN_RESULTS = {_LIST, _ASYNC}  # remedies that help in the worker, too
_IMPORT = (
    "have workers import the function (define it in a module, or at the top of the script, outside of "
    '`if __name__ == "__main__":`, which the script must have)'
)
_MAKE_THERE = "make it in the worker"
_LOCKS = {"_thread.lock", "_thread.RLock"}


class Culprit(NamedTuple):
    """A part that does not pickle for its own sake; ``error`` is the pickler's about this part alone."""

    path: str
    value: object
    error: BaseException


class _Part(NamedTuple):
    value: object
    label: Label
    owner: int  # its index among the parts; -1: it is the root


def find(root: object, name: str, pickler: type[pickle.Pickler], seconds: float = _MOST_SECONDS) -> Culprit | None:
    """The nearest part of ``root`` that does not pickle; ``None`` if there is none, or none was found in time.

    Args:
        root: what does not pickle.
        name: what the path calls it.
        pickler: the class of the pickler that refused it; called as ``pickler(file, protocol=5)``.
        seconds: how long to look for it.
    """
    deadline = time.monotonic() + seconds
    open_ = opener(pickler)
    parts = [_Part(root, Label("", ""), -1)]
    seen = {id(root)}  # the parts are kept, so the numbers stay theirs
    index = -1
    while (index := index + 1) < len(parts) and time.monotonic() < deadline:
        inner, error = open_(parts[index].value)
        if error is not None:
            return Culprit(_path(parts, index, name), parts[index].value, error)
        for label, value in _until(deadline, inner):
            if id(value) not in seen and len(parts) < _MOST_PARTS:
                seen.add(id(value))
                parts.append(_Part(value, label, index))
    return None


def find_nesting(root: object, name: str, pickler: type[pickle.Pickler]) -> str:
    """The first steps of a nesting that is too deep for pickling: ``node.next.next.next...``; empty if none is found.

    The order is the pickler's, depth first: what is linked into one chain is too deep even where there is a shorter
    way to each part.
    """
    deadline = time.monotonic() + _MOST_SECONDS
    open_ = opener(pickler)
    seen: dict[int, object] = {}  # the values are kept, so the numbers stay theirs
    way: list[tuple[Label, Iterator[tuple[Label, object]]]] = []
    step: tuple[Label, object] | None = (Label("", ""), root)
    while len(way) <= _DEEP and time.monotonic() < deadline:
        if step is None:
            way.pop()
        elif id(step[1]) not in seen:
            seen[id(step[1])] = step[1]
            inner, error = open_(step[1])
            if error is not None:  # the pickler has not come further, either
                return ""
            way.append((step[0], _until(deadline, inner)))
        if not way:
            return ""
        step = next(way[-1][1], None)
    if len(way) <= _DEEP:
        return ""
    return _render(name, [label for label, _ in way[1 : 1 + _SHOWN_STEPS]]) + "..."


def _until(deadline: float, parts: Iterable[tuple[Label, object]]) -> Iterator[tuple[Label, object]]:
    """As many of the parts as time allows."""
    for number, part in enumerate(quietly(parts)):
        if number % _ONE_BY_ONE == 0 and time.monotonic() > deadline:
            return
        yield part


def remedy(culprit: Culprit, root: object, *, for_locks: str = "", returned: bool = False) -> str:
    """What to do about it, to follow the reason; empty where nothing is known, or a method of the user's has raised.

    Args:
        culprit: what was found.
        root: in what.
        for_locks: what else may be done about a plain lock.
        returned: whether ``root`` comes back from a worker, where it cannot be made again.
    """
    if type(culprit.error) is RuntimeError and _INHERITANCE in str(culprit.error):
        return f"; {_WHAT_IS_IN_IT if returned else _SHARED}"
    if not isinstance(culprit.error, TypeError | pickle.PicklingError):
        return ""
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(culprit.value).__mro__]
    fitting = next((_REMEDIES[name] for name in names if name in _REMEDIES), _MAKE_THERE)
    ways = [] if culprit.value is root else ["leave it out in __getstate__"]
    if "global variable" in culprit.path:  # of a function that is sent by value
        ways = [_IMPORT]
    elif culprit.path.startswith("closure variable"):
        ways = []
    if "multiprocessing.connection._ConnectionBase" in names:
        ways.append(_WHAT_IS_IN_IT if returned else _SHARED)
    else:
        ways += [fitting] if fitting in _IN_RESULTS or not returned else []
    ways += [for_locks] if for_locks and names[0] in _LOCKS else []
    if not ways:
        return ""
    return "; " + ", ".join([*ways[:-1], f"or {ways[-1]}" if ways[1:] else ways[-1]])


# -- texts -----------------------------------------------------------------------------------------------------------


def _path(parts: list[_Part], index: int, name: str) -> str:
    labels = []
    while index > 0:
        labels.append(parts[index].label)
        index = parts[index].owner
    text = _render(name, labels[::-1])
    if len(text) <= _LONGEST_PATH:
        return text
    return f"{text[: _LONGEST_PATH // 2]} ... {text[-_LONGEST_PATH // 2 :]}"


def _render(name: str, labels: Iterable[Label]) -> str:
    text = name
    is_phrase = " " in name
    for label in labels:
        if is_phrase and not label.before:
            text = f"({text})"
        text = f"{label.before}{text}{label.after}"
        is_phrase = label.is_phrase
    return text
