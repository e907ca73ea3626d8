"""Decisions are pure: the modules that decide see no clock, thread, file, process or chance (law 9)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resilient_exec

PACKAGE = Path(resilient_exec.__file__).parent
# All that decides, and the words it decides in.  Errors, dossiers and policies decide nothing.
PURE = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for folder in ("core", "model")
    for path in (PACKAGE / folder).glob("*.py")
    if path.stem not in ("errors", "worker_errors", "exit_status", "dossier", "policies")
)
# Whatever else a pure module needs must be added here, by somebody who has thought about it.
HARMLESS = {"__future__", "bisect", "collections", "collections.abc", "dataclasses", "enum", "heapq", "typing"}
OURS = "resilient_exec"
IMPURE_NAMES = {
    "open",
    "print",
    "input",
    "exec",
    "eval",
    "compile",
    "__import__",
    "id",
    "hash",
    "breakpoint",
    "globals",
}


def _tree(name: str) -> ast.Module:
    return ast.parse(PACKAGE.joinpath(*name.split(".")).with_suffix(".py").read_text(encoding="utf-8"))


def impurities(tree: ast.Module) -> list[str]:
    """What in it could reach the world, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        elif isinstance(node, ast.Name) and node.id in IMPURE_NAMES:
            found.append(f"line {node.lineno}: {node.id}")
            continue
        else:
            continue
        found += [f"line {node.lineno}: import {n}" for n in names if n not in HARMLESS and n.split(".")[0] != OURS]
    return found


@pytest.mark.parametrize("name", PURE)
def test_a_module_that_decides_reaches_nothing_of_the_world(name: str) -> None:
    assert impurities(_tree(name)) == []


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_no_module_of_ours_that_is_not(name: str) -> None:
    ours = {
        node.module.removeprefix(f"{OURS}.")
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{OURS}.")
    }
    assert ours <= {*PURE, "model.errors", "model.worker_errors"}


@pytest.mark.parametrize(
    "text",
    ["import time", "from random import random", "def f():\n    import os", "from . import lane", "open('x')", "id(1)"],
)
def test_the_check_itself_finds_what_is_impure(text: str) -> None:
    assert len(impurities(ast.parse(text))) == 1
