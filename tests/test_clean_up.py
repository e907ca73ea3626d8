"""What has to be put in order behind a Ctrl-C is, on each Python."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest
from test_layers import MODULES, layer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where the main thread passes through, in which alone handlers of signals run.
MAIN_THREAD = ("pool", "adapters", "cli")
OTHER_THREADS = {"pool.log_receiver"}  # its `_run` is a thread
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def loops(body: list[ast.AST]) -> Iterator[int]:
    """Line numbers of the loops in there, functions' own left out."""
    for node in body:
        if isinstance(node, ast.While | ast.For | ast.AsyncFor):
            yield node.lineno
        if not isinstance(node, SCOPES):
            yield from loops(list(ast.iter_child_nodes(node)))


def catches_a_ctrl_c(node: ast.Try) -> bool:
    caught = [ast.unparse(handler.type) if handler.type else "BaseException" for handler in node.handlers]
    return bool(node.finalbody) or any("BaseException" in name or "KeyboardInterrupt" in name for name in caught)


def risky(source: str) -> list[int]:
    """Lines of loops that stand directly in a `try` which has something to do behind a Ctrl-C."""
    tries = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Try) and catches_a_ctrl_c(node)]
    return sorted({line for node in tries for line in loops(list(node.body))})


def test_the_search_finds_a_loop_and_passes_over_a_function() -> None:
    assert risky("try:\n  if a:\n    for x in y: pass\nfinally: pass") == [3]
    assert risky("try:\n  while a: pass\nexcept BaseException: pass") == [2]
    assert risky("try:\n  def f():\n    while 1: pass\n  f()\nfinally: pass") == []
    assert risky("try:\n  for x in y: pass\nexcept OSError: pass") == []


@pytest.mark.parametrize(
    "module", sorted(name for name in MODULES if layer(name) in MAIN_THREAD or name.startswith("supervisor.latch"))
)
def test_no_loop_stands_directly_in_a_try_that_has_to_clean_up_behind_a_ctrl_c(module: str) -> None:
    """On some releases of 3.14 what a handler raises where a loop jumps back passes the `finally` by."""
    if module not in OTHER_THREADS:
        assert risky(MODULES[module].read_text(encoding="utf-8")) == [], f"{module}: put the loop into a function"
