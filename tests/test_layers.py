"""A folder is a layer: imports go down only, and nowhere in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resilient_exec

PACKAGE = Path(resilient_exec.__file__).parent
# Which folders a folder may import, the lowest first.  All imports count: those inside functions, and those under
# TYPE_CHECKING, since whoever reads a module has to know what it names.
LAYERS: dict[str, set[str]] = {
    "model": set(),
    "core": {"model"},
    "wire": {"model"},
    "worker": {"model", "wire"},
    "process": {"wire"},
    "supervisor": {"core", "model", "process"},
    "lane": {"core", "model", "process", "supervisor", "wire", "worker"},
    "pool": {"core", "lane", "model", "process", "supervisor", "wire", "worker"},
    "diagnosis": {"lane", "model", "process", "wire", "worker"},
    "adapters": {"diagnosis", "model", "pool", "wire", "worker"},
    "cli": {"diagnosis", "adapters", "model", "pool", "wire"},
}
DOOR = "the door"  # resilient_exec/__init__.py and __main__.py, which hand the public names on
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
    for path in PACKAGE.rglob("*.py")
}


def imports(source: str) -> set[str]:
    """The modules of ours that ``source`` imports, by their names inside the package (the door is ``""``)."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this package"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = whole.removeprefix("resilient_exec.") in MODULES
                found.add(whole if is_module else str(node.module))
    return {
        name.removeprefix("resilient_exec").removeprefix(".") for name in found if name.startswith("resilient_exec")
    }


def layer(module: str) -> str:
    first = module.split(".", maxsplit=1)[0]
    return first if (PACKAGE / first).is_dir() and first else DOOR


GRAPH = {name: imports(path.read_text(encoding="utf-8")) - {name} for name, path in MODULES.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in order; empty where there is none."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := follow(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


@pytest.mark.parametrize("module", sorted(name for name in GRAPH if layer(name) != DOOR))
def test_a_module_imports_only_layers_below_its_own(module: str) -> None:
    own = layer(module)
    assert own in LAYERS, f"the folder {own} is new: say in LAYERS (tests/test_layers.py) what it may import"
    used = {layer(name) for name in GRAPH[module] if layer(name) != DOOR} - {own}
    assert used <= LAYERS[own], f"{module} imports from {sorted(used - LAYERS[own])}, which {own} may not"


def test_each_layer_names_only_layers_below_itself() -> None:
    order = list(LAYERS)
    assert not [name for name in order if not LAYERS[name] <= set(order[: order.index(name)])]
    assert set(order) == {layer(name) for name in GRAPH} - {DOOR}


def test_nothing_imports_in_a_circle() -> None:
    # The door is left out: what asks for a public name through it is answered when the name is used.
    assert not circle({name: others - {""} for name, others in GRAPH.items() if name})


def test_the_search_for_circles_finds_one() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_few_modules_stand_beside_the_folders() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_says_in_its_first_line_what_it_is(name: str) -> None:
    assert (ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))) or "").strip()
