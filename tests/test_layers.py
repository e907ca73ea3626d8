"""Imports inside the package go down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resilient_exec.core

PACKAGE = Path(resilient_exec.core.__file__).parent
# Who may import whom, the lowest first; a module may only name modules that stand above it in this list.
# Imports under TYPE_CHECKING do not count (they only name types), imports inside functions do.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "summary": set(),
    "task": set(),
    "events": {"task"},
    "ports": set(),
    "timers": set(),
    "messages": {"events"},
    "states": {"errors", "events", "summary"},
    "roster": {"states"},
    "starts": set(),
    "admission": {"states"},
    "doom": {"errors", "states", "task"},
    "policies": {"summary"},
    "dossier": {"errors", "summary"},
    "verdict": {"dossier", "errors", "summary", "task"},
    "core": {
        *("admission", "doom", "errors", "events", "messages", "ports", "roster", "starts", "states", "task", "timers"),
    },
    # the worker half: the only code of ours that runs in a worker
    "scratch": set(),
    "evidence": set(),
    "context": {"evidence", "scratch"},
    "streams": set(),
    "locks": set(),
    "reduction": set(),
    "culprit": {"reduction"},
    "payload": {"culprit", "errors", "locks"},
    "channel": set(),
    "worker": {"channel", "context", "errors", "evidence", "payload", "streams"},
    "ending": set(),
    "forkserver": {"ending"},
    # the lane: the only code that touches a worker
    "process": set(),
    "memory": {"process"},
    "exit_hook": set(),
    "guard": {"process", "scratch"},
    "bell": set(),
    "launch": set(),
    "forking": {"evidence", "forkserver", "guard", "launch", "process"},
    "leftovers": set(),
    "capture": {"evidence"},
    "stacks": {"evidence", "process"},
    "lease": {
        *("capture", "channel", "scratch", "evidence", "exit_hook", "forking", "guard", "launch", "leftovers"),
        *("memory", "process", "stacks", "worker"),
    },
    "initializer": {"errors", "payload"},
    "gauge": {"memory"},
    "attempt": {"channel", "gauge", "memory", "messages", "payload", "process", "summary", "task"},
    "lane": {"attempt", "bell", "channel", "lease", "messages", "task", "worker"},
    # the pool; the supervisor does not know what a lane is made of
    "clock": set(),
    "latch": set(),
    "pressure": {"admission", "memory", "messages"},
    "telling": {"dossier", "summary"},
    "supervisor": {
        *("clock", "core", "errors", "events", "latch", "messages", "ports", "pressure", "summary", "task", "telling"),
        "verdict",
    },
    "future": {"dossier", "latch"},
    "options": {"policies"},
    "front": {"future", "options"},
    "pool": {
        *("errors", "exit_hook", "forking", "front", "future", "initializer", "lane", "launch", "lease", "messages"),
        *("options", "payload", "policies", "pressure", "states", "summary", "supervisor", "task", "telling"),
    },
    "reusable": {"errors", "options", "pool"},
    # on top
    "output": set(),
    "adapters.negmas.checks": {"errors"},
    "adapters.negmas.claim": {"adapters.negmas.checks"},
    "adapters.negmas.markers": set(),
    "adapters.negmas.travel": {"errors"},
    "adapters.negmas.settings": {"options", "output", "policies"},
    "adapters.negmas.coverage": set(),
    "adapters.negmas.report": {"adapters.negmas.coverage", "errors", "output", "payload"},
    "adapters.negmas.results": set(),
    "adapters.negmas.seeding": set(),
    "adapters.negmas.negotiation_seeds": {"adapters.negmas.seeding"},
    "adapters.negmas.provenance": {"adapters.negmas.seeding"},
    "adapters.negmas.onstage": set(),
    "adapters.negmas.entries": {"adapters.negmas.onstage", "context", "evidence"},
    "adapters.negmas.empty": {"adapters.negmas.onstage"},
    "adapters.negmas.stage": {
        "adapters.negmas.empty",
        "adapters.negmas.entries",
        "adapters.negmas.onstage",
        "context",
        "evidence",
    },
    "adapters.negmas.chronicle": {"adapters.negmas.onstage", "adapters.negmas.stage"},
    "adapters.negmas.worldset": {
        *(
            "adapters.negmas.chronicle",
            "adapters.negmas.markers",
            "adapters.negmas.onstage",
            "adapters.negmas.results",
            "adapters.negmas.seeding",
        ),
        *("adapters.negmas.stage", "adapters.negmas.travel", "context", "output"),
    },
    "adapters.negmas.plan": {
        *("adapters.negmas.markers", "adapters.negmas.onstage", "adapters.negmas.report", "adapters.negmas.settings"),
    },
    "adapters.negmas.verification": {"adapters.negmas.checks", "adapters.negmas.worldset"},
    "adapters.negmas.preloading": {"pool"},
    "adapters.negmas.tables": set(),
    "adapters.negmas.blame": {"adapters.negmas.onstage"},
    "adapters.negmas.disqualify": set(),
    "adapters.negmas.health": set(),
    "adapters.negmas.conduct": {
        *("adapters.negmas.blame", "adapters.negmas.chronicle", "adapters.negmas.disqualify"),
        *("adapters.negmas.health", "adapters.negmas.onstage"),
    },
    "adapters.negmas.worlds": {
        *("adapters.negmas.blame", "adapters.negmas.checks", "adapters.negmas.conduct", "adapters.negmas.entries"),
        *("adapters.negmas.markers", "adapters.negmas.onstage", "adapters.negmas.plan", "adapters.negmas.preloading"),
        *("adapters.negmas.report", "adapters.negmas.results", "adapters.negmas.seeding", "adapters.negmas.settings"),
        *("adapters.negmas.travel", "adapters.negmas.verification", "adapters.negmas.worldset"),
        *("errors", "future", "output"),
    },
    "adapters.negmas.negotiations": {
        *("adapters.negmas.checks", "adapters.negmas.negotiation_seeds", "adapters.negmas.preloading"),
        *("adapters.negmas.report", "adapters.negmas.seeding", "adapters.negmas.settings", "errors", "output", "pool"),
    },
    "adapters.negmas.seam": {
        *("adapters.negmas.checks", "adapters.negmas.chronicle", "adapters.negmas.claim", "adapters.negmas.conduct"),
        *(
            "adapters.negmas.negotiation_seeds",
            "adapters.negmas.negotiations",
            "adapters.negmas.plan",
            "adapters.negmas.provenance",
        ),
        *("adapters.negmas.report", "adapters.negmas.seeding", "adapters.negmas.settings", "adapters.negmas.worlds"),
    },
    "adapters": {
        *("adapters.negmas.checks", "adapters.negmas.report", "adapters.negmas.seam", "adapters.negmas.settings"),
    },
    "cli.pool_options": {"options"},
    "cli.run": {"adapters", "cli.pool_options", "options"},
    "cli.health": set(),
    "cli.scml": {
        *("adapters", "adapters.negmas.provenance", "adapters.negmas.seeding", "adapters.negmas.settings"),
        *("cli.health", "cli.pool_options"),
    },
    "cli.check": {"adapters", "adapters.negmas.settings", "cli.pool_options", "cli.scml", "errors", "payload"},
    "cli": {"cli.check", "cli.pool_options", "cli.run", "cli.scml", "options"},
    "__main__": {"cli"},
}
PACKAGES = {"adapters", "cli"}  # named where one of their modules is imported through them
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def _imports(node: ast.AST) -> set[str]:
    """Modules of ours that are imported below ``node``, by their names inside the package."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return set().union(*map(_imports, node.orelse))
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute in this package"
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name.removeprefix("resilient_exec.") in MODULES else str(node.module) for name in whole]
    ours = {name.removeprefix("resilient_exec.") for name in names if name.startswith("resilient_exec.")}
    return ours.union(*map(_imports, ast.iter_child_nodes(node)))


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[-1] != "__init__"])
def test_a_module_imports_only_what_its_layer_allows(module: str) -> None:
    assert module in ALLOWED, (
        f"{module} is new: say in ALLOWED (tests/test_layers.py) which modules of ours it may import"
    )
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    wrong = _imports(ast.parse(path.read_text(encoding="utf-8"))) - ALLOWED[module]
    assert not wrong, f"{module} imports {sorted(wrong)}; ALLOWED (tests/test_layers.py) does not let it"


def test_each_layer_names_only_layers_that_stand_before_it() -> None:
    order = list(ALLOWED)
    assert not [name for name in order if not ALLOWED[name] <= set(order[: order.index(name)])]
    assert set(order) <= {*MODULES, *PACKAGES}, "a module in ALLOWED is gone"
