"""Which scripts workers import, and what of a script they then have for certain."""

from __future__ import annotations

import ast
import runpy
import sys
import sysconfig
import textwrap
import types

import pytest

from resilient_exec.wire.outline import guard_of
from resilient_exec.wire.script import find_script


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("__name__ == '__main__'", True),
        ("'__main__' == __name__", True),
        ("__name__ == '__main__' and len(sys.argv) > 1", True),
        ("DEBUG and '__main__' == __name__", True),
        ("__name__ != '__main__'", False),
        ("not __name__ == '__main__'", False),
        ("not __name__ != '__main__'", True),
        ("not (__name__ == '__main__' and DEBUG)", None),
        ("__name__ == '__main__' or DEBUG", None),
        ("__name__ == '__mp_main__'", None),
        ("__name__ in ('__main__', '__mp_main__')", None),
        ("name == '__main__'", None),
        ("DEBUG", None),
    ],
)
def test_a_guard_is_a_test_that_holds_in_the_program_alone(test, expected):
    assert guard_of(ast.parse(test, mode="eval").body) is expected


SCRIPT = """
    import functools
    import decimal
    from collections import namedtuple
    from enum import Enum
    from resilient_exec.wire.script import find_script

    decimal.getcontext().prec = 50

    def work(x):
        return x

    class Kept:
        def method(self): return 1
        class Inner: pass

    Point = namedtuple("Point", "x y")
    Color = Enum("Color", "RED")
    wrapped = functools.wraps(work)(lambda x: x)

    try:
        import nothing_of_that_name
    except ImportError:
        def instead(): return 2

    def rebound(): return 1
    class Changed: pass
    def make():
        class Local: pass
        return Local
    def declare():
        global Declared
        class Declared: pass

    if __name__ == "__main__":
        def inside(): return 3
        class Inside: pass
        def rebound(): return 4
        Changed.more = 5
        declare()
        exec("def made(): return 6")
        {name} = find_script({mode!r})
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a text as the program's script, in this process, with ``__main__`` put back afterwards."""
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules["__main__"])

    def run(text, name="script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        main = types.ModuleType("__main__")
        main.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), vars(main))  # noqa: S102
        return main

    return run


def test_a_script_has_what_its_top_level_binds_outside_the_guard(run):
    main = run(SCRIPT.format(name="found", mode="auto"))
    has = main.found.has
    assert all(
        map(has, (main.work, main.Kept, main.Kept.Inner, main.Kept.method, main.Point, main.Color, main.instead))
    )
    # What is defined or changed behind the guard, in functions, by exec, or under another name, is not there.
    others = (main.inside, main.Inside, main.rebound, main.Changed, main.make(), main.Declared, main.made, main.wrapped)
    assert not any(map(has, others))


def test_what_was_bound_anew_since_is_not_what_the_script_has(run):
    main = run(SCRIPT.format(name="found", mode="auto"))
    old = main.work
    assert main.found.has(old)
    exec("def work(x): return -x", vars(main))  # noqa: S102  as typed into a session behind the script
    assert not main.found.has(old)
    assert not main.found.has(main.work)


def test_a_method_that_is_not_the_texts_own_makes_the_class_another(run):
    main = run("class A:\n    def f(self): return 1\ndef g(self): return 2\nif __name__ == '__main__':\n    pass\n")
    found = find_script("import")
    exec("def f(self): return 3", names := vars(main).copy())  # noqa: S102
    main.A.f = names["f"]
    main.A.f.__code__ = main.A.f.__code__.replace(co_filename=main.__file__)
    assert not found.has(main.A)


def test_an_edited_script_is_not_what_runs(run, tmp_path):
    main = run("def f():\n    return 1\ndef g():\n    return 1\nif __name__ == '__main__':\n    pass\n")
    (tmp_path / "script.py").write_text(
        "def f():\n    return 1\ndef g():\n    return 2\nif __name__ == '__main__':\n    pass\n"
    )
    found = find_script("import")
    assert found.has(main.f)
    assert not found.has(main.g)


@pytest.mark.parametrize(
    "text",
    [
        "found = find_script('auto')",
        "if __name__ == '__main__':\n    pass\nfound = find_script('auto')",
        "def pool():\n    return find_script('auto')\nfound = pool()\nif __name__ == '__main__':\n    pass",
        "if __name__ == '__main__' or True:\n    found = find_script('auto')",
        "if __name__ != '__main__':\n    pass\nelse:\n    pass\nfound = find_script('auto')",
    ],
    ids=["no guard", "behind the guard's end", "in a function that is called in front of it", "or", "else"],
)
def test_a_script_that_makes_its_pool_in_front_of_its_guard_is_not_imported(run, text):
    assert run(f"from resilient_exec.wire.script import find_script\n{text}\n").found is None


@pytest.mark.parametrize(
    "text",
    [
        "if __name__ == '__main__':\n    found = find_script('auto')",
        "def main():\n    global found\n    found = find_script('auto')\nif '__main__' == __name__: main()",
        "try:\n    if __name__ == '__main__' and True:\n        found = find_script('auto')\nfinally:\n    pass",
        "if __name__ != '__main__':\n    pass\nelse:\n    found = find_script('auto')",
        "if False:\n    pass\nelif __name__ == '__main__':\n    found = find_script('auto')",
    ],
    ids=["plain", "one line, turned round", "nested", "else", "elif"],
)
def test_a_script_that_makes_its_pool_behind_its_guard_is_imported(run, text):
    main = run(f"from resilient_exec.wire.script import find_script\nfound = 0\n{text}\n")
    assert main.found.path == main.__file__


def test_value_imports_nothing(run):
    assert run(SCRIPT.format(name="found", mode="value")).found is None


def test_import_needs_no_guard(run):
    main = run("from resilient_exec.wire.script import find_script\nfound = find_script('import')\n")
    assert main.found.path == main.__file__


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "has no file"),
        ({"__file__": "/nowhere/script.py"}, "No such file"),
        ({"__file__": __file__ + "c"}, "No such"),
    ],
    ids=["session", "gone", "compiled"],
)
def test_import_says_what_is_missing(monkeypatch, attributes, why):
    main = types.ModuleType("__main__")
    vars(main).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(ValueError, match=rf'^main="import" needs a script .*{why}'):
        find_script("import")
    assert find_script("auto") is None


def test_an_installed_command_is_not_imported(monkeypatch, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(folder))
    path = folder / "command"
    path.write_text(
        "import sys\nfrom resilient_exec.wire.script import find_script\nif __name__ == '__main__':\n"
        "    sys.found = find_script('auto')\n"
    )
    monkeypatch.setattr(sys, "found", 0, raising=False)
    runpy.run_path(str(path), run_name="__main__")
    assert sys.found is None
    path.write_text("x = 1\n" + path.read_text())
    runpy.run_path(str(path), run_name="__main__")
    assert sys.found.path == str(path)


def test_another_main_is_known_by_multiprocessings_name_too(run):
    main = run(SCRIPT.format(name="found", mode="auto"))
    assert sys.modules["__mp_main__"] is main
