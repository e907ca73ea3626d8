"""Reads the source of the lines on a stack: their text, which lock a line asks for, which locks are held there.

``with lock:`` around a line, or ``lock.acquire()`` before it without a ``release()`` between, say that the thread holds
the lock.  Which object the name means was told by the probe (:attr:`Frame.locks`).
"""

from __future__ import annotations

import ast
import functools
import linecache
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_exec.diagnosis.facts import Frame, Thread

__all__ = ["is_guarded", "with_source"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_TOP = 6  # frames whose text is read


def with_source(thread: Thread) -> Thread:
    """The thread with what the sources of its frames say."""
    return replace(thread, frames=tuple(_read(frame, at) for at, frame in enumerate(thread.frames)))


def _read(frame: Frame, at: int) -> Frame:
    text = linecache.getline(frame.file, frame.line).strip() if at < _TOP else ""
    if not frame.locks:
        return replace(frame, text=text) if text else frame
    by_name = {lock.name: lock for lock in frame.locks}
    holds, wants = [], None
    tree = _parse(frame.file)
    if tree is not None:
        for name, line, is_wanted in _uses(tree, frame):
            lock = by_name.get(name)
            if lock is None:
                continue
            if is_wanted:
                wants = lock.identity
            elif lock.is_locked:
                holds.append((lock.identity, f"{name} since line {line} of {frame.file.rpartition('/')[2]}"))
    return replace(frame, text=text, holds=tuple(holds), wants=wants)


@functools.lru_cache(maxsize=64)
def _parse(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _function(tree: ast.Module, line: int, name: str) -> ast.AST:
    """The innermost function of that name around the line; the module where it is none."""
    found: ast.AST = tree
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS) and node.name == name and node.lineno <= line <= (node.end_lineno or 0):
            found = node
    return found


def _own_nodes(function: ast.AST) -> Iterator[Any]:
    """The function's own code, without that of functions and classes inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            yield node
            yield from _own_nodes(node)


def _uses(tree: ast.Module, frame: Frame) -> Iterator[tuple[str, int, bool]]:
    """What the function says of its locks at that place: name, line, and whether it is asked for (or held)."""
    function = _function(tree, frame.line, frame.name)
    here = (frame.line, frame.column if frame.column is not None else -1)
    for node in _own_nodes(function):
        for item in node.items if isinstance(node, ast.With) else ():
            there = (item.context_expr.lineno, item.context_expr.col_offset)
            if len(node.items) == 1 and _is_at((node.lineno, node.col_offset), frame):
                there = (node.lineno, node.col_offset)  # Python 3.11 names the statement, and not which of its items
            if _is_at(there, frame):
                yield _dotted(item.context_expr), there[0], True
            elif there < here and frame.line <= (node.end_lineno or 0):
                yield _dotted(item.context_expr), there[0], False
    released = dict(_calls(function, "release"))
    for lock, there in _calls(function, "acquire"):
        if _is_at(there, frame):
            yield lock, there[0], True
        elif there < here and not there <= released.get(lock, (0, 0)) < here:
            yield lock, there[0], False


def _is_at(there: tuple[int, int], frame: Frame) -> bool:
    """Whether the thread stands there; where its column is not known, whether it is the line."""
    return there[0] == frame.line and frame.column in (None, there[1])


def _calls(function: ast.AST, method: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The calls of that method, in their order: of what, and where."""
    found = [
        ((node.lineno, node.col_offset), _dotted(node.func.value))
        for node in _own_nodes(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]
    yield from ((name, there) for there, name in sorted(found) if name)


def is_guarded(file: str) -> bool | None:
    """Whether a script has ``if __name__ == "__main__":``; ``None``: it cannot be read."""
    tree = _parse(file)
    if tree is None or not tree.body:
        return None
    return any(
        isinstance(node, ast.If)
        and any(isinstance(name, ast.Name) and name.id == "__name__" for name in ast.walk(node.test))
        for node in tree.body
    )
