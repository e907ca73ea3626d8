"""The script's own module in the workers: as multiprocessing's spawn has it where it is guarded, else by value."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from scripts import NOT_FOR_SCRIPTS

import resilient_exec

HEAD = "from resilient_exec import ResilientPool\n"


@pytest.fixture
def run(tmp_path):
    """Runs a program; what it has printed, line by line."""

    def run(text, *arguments, name="script.py", command=None, cwd=tmp_path, fails=False, stdin=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if k not in NOT_FOR_SCRIPTS}
        environment["PYTHONPATH"] = str(Path(resilient_exec.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, *(command or [str(path)]), *arguments],
            cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout.splitlines()

    return run


GUARD = '\nif __name__ == "__main__":\n    pass\n'


def test_an_initializer_sets_a_global_that_tasks_read(run):
    text = """
        rate = 0
        def prepare(value):
            global rate
            rate = value
        def bill(hours): return rate * hours
        if __name__ == "__main__":
            with ResilientPool(2, initializer=prepare, initargs=(10,)) as pool:
                print(list(pool.map(bill, range(4))))
    """
    assert run(text) == ["[0, 10, 20, 30]"]


def test_what_the_top_level_sets_holds_in_tasks(run):
    text = """
        import decimal, random, sys, threading, functools, contextvars
        decimal.getcontext().prec = 50
        sys.setrecursionlimit(5000)
        generator = random.Random()
        lock = threading.Lock()
        variable = contextvars.ContextVar("variable", default=7)
        def settings(): return decimal.getcontext().prec, sys.getrecursionlimit()
        def draw(_): return generator.random()
        def locked():
            with lock: return variable.get()
        @functools.lru_cache
        def square(x): return x * x
        @functools.singledispatch
        def kind(x): return "any"
        @kind.register
        def _(x: int): return "int"
        if __name__ == "__main__":
            with ResilientPool(2) as pool:
                print(pool.submit(settings).result(), pool.submit(locked).result())
                print(len(set(pool.map(draw, range(8)))))
                print(pool.submit(square, 3).result(), pool.submit(kind, 3).result(), pool.submit(kind, "").result())
    """
    assert run(text) == ["(50, 5000) 7", "8", "9 int any"]


KINDS = """
    import abc, dataclasses, enum, functools, typing
    @dataclasses.dataclass(slots=True, frozen=True)
    class Data:
        x: int
        def up(self): return Data(self.x + 1)
    class Named(typing.NamedTuple):
        a: int
    class Color(enum.Enum):
        RED = 1
    class Meta(type):
        def __eq__(cls, other): raise RuntimeError("compared")
        __hash__ = None
    class WithMeta(metaclass=Meta): pass
    class Base(abc.ABC):
        kids = {}
        def __init_subclass__(cls): Base.kids[cls.__name__] = cls
    class Kid(Base): pass
    T = typing.TypeVar("T")
    class Box(typing.Generic[T]): pass
    class Failed(Exception):
        def __init__(self, code, *, extra):
            super().__init__(code)
            self.extra = extra
    def same(x): return x
    def fail(): raise Failed(3, extra="more")
    def made(): return [Data(1).up(), Named(2), Color.RED, Data, Kid, same, type(WithMeta())]
    def of_here(data): return type(data) is Data, Color.RED is Color(1)
    def local():
        class Local:
            x = 5
        return Local()
    def kids(): return list(Base.kids)
    if __name__ == "__main__":
        with ResilientPool(1) as pool:
            data, named, red, *things = pool.submit(made).result()
            print(type(data) is Data, data.x, type(named) is Named, red is Color.RED)
            print(all(a is b for a, b in zip(things, [Data, Kid, same, WithMeta])))
            print(pool.submit(of_here, Data(1)).result(), pool.submit(local).result().x, pool.submit(kids).result())
            for thing in (Data(1).up, Box[int], functools.partial(same, x=Data(2)), WithMeta, Color.RED, [Data]):
                back = pool.submit(same, thing).result() if thing != functools.partial else 0
                print(repr(back).partition(" at ")[0].replace("__main__.", ""))
            print(pool.submit(lambda x: x.x, Data(4)).result())
            try:
                pool.submit(fail).result()
            except Failed as error:
                print(error.args, error.extra)
""".replace(" if thing != functools.partial else 0", "")


def test_classes_and_functions_of_the_script_are_the_same_on_both_sides(run):
    assert run(KINDS) == [
        "True 2 True True",
        "True",
        "(True, True) 5 ['Kid']",
        "<bound method Data.up of Data(x=1)>",
        "Box[int]",
        "functools.partial(<function same",
        "<class 'WithMeta'>",
        "<Color.RED: 1>",
        "[<class 'Data'>]",
        "4",
        "(3,) more",
    ]


def test_what_is_defined_behind_the_guard_travels_by_value(run):
    text = """
        def twice(x): return 2 * x
        def replaced(): return "above"
        if __name__ == "__main__":
            class Local:
                def __init__(self, x): self.x = x
            def use(local): return Local(twice(local.x))
            def replaced(): return "behind"
            with ResilientPool(1) as pool:
                back = pool.submit(use, Local(4)).result()
                print(type(back) is Local, back.x, pool.submit(replaced).result())
                print(pool.submit(lambda: replaced()).result())
    """
    assert run(text) == ["True 8 behind", "behind"]


def test_a_cached_function_behind_the_guard_is_refused_with_the_cure(run):
    text = """
        import functools
        if __name__ == "__main__":
            @functools.lru_cache
            def square(x): return x * x
            with ResilientPool(1) as pool:
                print(str(pool.submit(square, 3).exception()))
    """
    (line,) = run(text)
    assert 'is defined behind `if __name__ == "__main__":`' in line
    assert "define it above" in line


def test_a_script_is_compiled_once_and_not_by_each_worker(run, tmp_path):
    (tmp_path / "listens.py").write_text(
        "import sys\nheard = []\n"
        "sys.addaudithook(lambda name, args: heard.append(args[1]) if name == 'compile' else None)\n"
    )
    text = """
        def heard():
            import listens
            return __file__ in map(str, listens.heard), eval("__name__")
        if __name__ == "__main__":
            with ResilientPool(1, preload=("listens",), max_tasks_per_worker=1) as pool:
                print(*(pool.submit(heard).result() for _ in range(2)))
    """
    (line,) = run(text)
    assert line == "(False, '__mp_main__') (False, '__mp_main__')"


PLACES = """
    import os, sys
    def places():
        main = sys.modules["__main__"]
        spec = main.__spec__ and main.__spec__.name
        return __name__, __file__, spec, __package__, sys.argv[1:], sys.path[0], main is sys.modules["__mp_main__"]
    if __name__ == "__main__":
        with ResilientPool(1) as pool:
            print(*pool.submit(places).result(), sep="|")
"""


@pytest.mark.parametrize("name", ["script.py", "with a space.py", "ünïcode ☃.py", "colorsys.py", "noending"])
def test_a_script_is_imported_from_its_file_whatever_that_is_called(run, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = tmp_path / name
    (line,) = run(PLACES, "one", "2", name=name, cwd=elsewhere, command=[os.path.relpath(path, elsewhere)])
    assert line == f"__mp_main__|{path}|None||['one', '2']|{tmp_path}|True"


def test_a_module_is_imported_by_its_name(run, tmp_path):
    package = tmp_path / "package" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / "__init__.py").write_text("")
    (package / "helper.py").write_text("def half(x): return x / 2\n")
    text = "from .helper import half\ndef halve(x): return half(x)\n" + textwrap.dedent(PLACES).replace(
        "        print(", "        print(pool.submit(halve, 3).result());print("
    )
    name, module = "package/inner/tool.py", "package.inner.tool"
    half, line = run(text, "one", name=name, command=["-m", module])
    assert half == "1.5"
    assert line == f"__mp_main__|{tmp_path / name}|{module}|package.inner|['one']|{tmp_path}|True"


def test_the_main_module_of_a_package_is_imported_if_it_has_anything_of_its_own(run, tmp_path):
    (tmp_path / "tool").mkdir()
    (line,) = run(PLACES, name="tool/__main__.py", command=["-m", "tool"])
    assert line.startswith(f"__mp_main__|{tmp_path / 'tool/__main__.py'}|tool.__main__|tool|")


BY_VALUE = """
    factor = 3
    class Data:
        def __init__(self, x): self.x = x
    def use(data): return Data(factor * data.x)
    pool = ResilientPool(1)
    back = pool.submit(use, Data(4)).result()
    print(type(back) is Data, back.x)
    pool.shutdown()
"""


@pytest.mark.parametrize("way", ["file", "stdin", "-c", "folder", "archive", "exec"])
def test_without_a_guard_or_a_file_everything_travels_by_value(run, tmp_path, way):
    text = HEAD + textwrap.dedent(BY_VALUE)
    match way:
        case "file":
            out = run(BY_VALUE)
        case "stdin":
            out = run("", command=["-"], stdin=text)
        case "-c":
            out = run("", command=["-c", text])
        case "exec":
            out = run("", command=["-c", f"exec({text!r}, {{'__name__': '__main__'}})"])
        case "folder":
            out = run(
                f"{textwrap.dedent(BY_VALUE)}{GUARD}", name="folder/__main__.py", command=[str(tmp_path / "folder")]
            )
        case "archive":
            import zipapp

            (tmp_path / "app").mkdir()
            (tmp_path / "app" / "__main__.py").write_text(text + GUARD)
            zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
            out = run("", command=[str(tmp_path / "app.pyz")])
    assert out == ["True 12"]


def test_a_pool_in_front_of_the_guard_sends_by_value(run):
    text = BY_VALUE + '\n    if __name__ == "__main__":\n        print("behind")\n'
    assert run(text) == ["True 12", "behind"]


def test_a_session_behind_a_script_sends_by_value(run, tmp_path):
    # Python takes the __file__ away from __main__ when the script has ended.
    text = """
        def where(): return __name__
        if __name__ == "__main__":
            print("behind")
    """
    session = "pool = ResilientPool(1)\ndef typed(): return where()\n\n"
    session += "print(pool.submit(where).result(), pool.submit(typed).result())\npool.shutdown()\n"
    assert run(text, command=["-i", str(tmp_path / "script.py")], stdin=session) == [
        "behind",
        "__main__ __main__",
    ]


def test_main_value_sends_by_value_behind_a_guard(run):
    text = """
        import os
        print("top")
        def name(): return __name__
        if __name__ == "__main__":
            with ResilientPool(1, main="value") as pool:
                print(pool.submit(name).result())
    """
    assert run(text) == ["top", "__main__"]


def test_main_import_needs_no_guard_but_a_script_that_starts_work_at_its_top_is_told_so(run):
    text = """
        def work(): return 1
        with ResilientPool(1, main="import", start_timeout=60) as pool:
            print(pool.submit(work).exception())
    """
    out = "\n".join(run(text))
    assert "a worker is importing the script" in out
    assert 'main="value"' in out


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("raise ValueError('not in a worker')", "ValueError: not in a worker"),
        ("raise SystemExit('usage: ...')", "SystemExit: usage: ..."),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("import multiprocessing as mp; mp.get_context('spawn').Process(target=print).start()", "bootstrapping phase"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_script_that_fails_to_be_imported_fails_its_tasks_in_its_own_words(run, top, words):
    text = f"""
        def work(): return 1
        if __name__ != "__main__":
            {top}
        else:
            with ResilientPool(1) as pool:
                print(pool.submit(work).exception())
    """
    out = "\n".join(run(text))
    assert words in out
    assert "script.py" in out


def test_a_script_that_must_be_imported_and_fails_to_be_breaks_the_pool(run):
    text = """
        def work(): return 1
        if __name__ != "__main__":
            raise ValueError("not in a worker")
        else:
            with ResilientPool(1, main="import") as pool:
                error = pool.submit(work).exception()
                print(type(error).__name__, "ValueError: not in a worker" in str(error))
    """
    assert run(text) == ["PoolBroken True"]


def test_a_script_that_fails_to_be_imported_costs_no_task_of_a_module(run):
    text = """
        import math
        def work(): return 1
        if __name__ != "__main__":
            raise ValueError("not in a worker")
        else:
            with ResilientPool(1) as pool:
                print(pool.submit(math.sqrt, 9).result(), type(pool.submit(work).exception()).__name__)
                print(pool.submit(math.sqrt, 16).result())
    """
    assert run(text) == ["3.0 NotSendable", "4.0"]


def test_a_script_whose_import_hangs_is_named_after_the_start_timeout(run):
    text = """
        import time
        def work(): return 1
        if __name__ != "__main__":
            time.sleep(1000)
        else:
            with ResilientPool(1, start_timeout=2) as pool:
                print(pool.submit(work).exception())
    """
    out = "\n".join(run(text))
    assert "the import of the script, '" in out
    assert "time.sleep(1000)" in out or "script.py" in out


def test_workers_that_are_started_later_have_the_script_as_it_was(run):
    text = """
        import os
        def work(): return "as it was"
        def die(): os._exit(1)
        if __name__ == "__main__":
            with ResilientPool(1, retry=1) as pool:
                print(pool.submit(work).result())
                with open(__file__, "w") as file:
                    file.write("half-saved (")
                pool.submit(die).exception()
                print(pool.submit(work).result())
    """
    assert run(text) == ["as it was", "as it was"]


def test_a_pool_in_a_spawned_child_has_the_script_too(run):
    text = """
        import multiprocessing
        level = 0
        def prepare():
            global level
            level = 1
        def work(x): return x + level
        def child(**options):
            with ResilientPool(1, **options) as pool:
                print(pool.submit(work, 1).result(), flush=True)
        if __name__ == "__main__":
            for options in ({"initializer": prepare}, {"main": "value"}):
                process = multiprocessing.get_context("spawn").Process(target=child, kwargs=options)
                process.start()
                process.join()
    """
    assert run(text) == ["2", "1"]


def test_a_task_may_use_pools_over_functions_of_the_script(run):
    text = """
        import multiprocessing
        def inner(x): return x * x
        def outer(n):
            with multiprocessing.get_context("spawn").Pool(1) as pool, ResilientPool(1) as ours:
                return pool.map(inner, range(n)), list(ours.map(inner, range(n)))
        if __name__ == "__main__":
            with ResilientPool(1) as pool:
                print(pool.submit(outer, 3).result())
    """
    assert run(text) == ["([0, 1, 4], [0, 1, 4])"]


def test_what_the_import_prints_is_captured_with_the_rest(run):
    text = """
        import threading
        print("hello")
        threading.Thread(target=print, args=("from a thread",)).start()
        def work(): return 1
        if __name__ == "__main__":
            with ResilientPool(1, output="discard") as pool:
                print(pool.submit(work).result())
    """
    assert run(text) == ["hello", "from a thread", "1"]


REUSED = """
    from resilient_exec import get_reusable_pool
    def work(): return __name__
    {top}
    if __name__ == "__main__":
        pool = get_reusable_pool(1)
        print(pool.submit(work).result(), get_reusable_pool(1) is pool, get_reusable_pool(1, main="value") is pool)
"""


def test_the_reusable_pool_is_kept_while_main_is_the_same(run):
    assert run(REUSED.format(top="")) == ["__mp_main__ True False"]
    # Pools that are used in front of the guard would be used so in each worker: all are by value then.
    top = "print(get_reusable_pool(1).submit(work).result())"
    assert run(REUSED.format(top=top)) == ["__main__", "__main__ True False"]


def test_an_initializer_by_value_that_sets_globals_is_warned_of(run):
    text = """
        import warnings
        warnings.simplefilter("error")
        rate = 0
        def prepare():
            global rate
            rate = 10
        try:
            ResilientPool(1, initializer=prepare)
        except RuntimeWarning as warning:
            print(warning)
    """
    (line,) = run(text)
    assert line.startswith("the initializer 'prepare' sets 'rate', which tasks will not see")
    assert '`if __name__ == "__main__":`' in line


def test_runpy_and_a_profiler_run_scripts_as_well(run, tmp_path):
    text = """
        level = 0
        def prepare():
            global level
            level = 1
        def work(x): return x + level
        if __name__ == "__main__":
            with ResilientPool(1, initializer=prepare) as pool:
                print(pool.submit(work, 1).result())
    """
    path = str(tmp_path / "script.py")
    assert run(text, command=["-c", f"import runpy; runpy.run_path({path!r}, run_name='__main__')"]) == ["2"]
    # This one is the program's __main__ itself, and the script nobody's: by value, with the warning.
    command = ["-W", "error::RuntimeWarning", "-m", "trace", "--count", "-C", str(tmp_path / "counts"), path]
    assert "the initializer 'prepare' sets 'level'" in run(text, command=command, fails=True)


@pytest.mark.parametrize("wrong", ["always", None, 1])
def test_a_wrong_main_is_refused(wrong):
    with pytest.raises(ValueError, match="main must be one of 'auto', 'import', 'value'; got"):
        resilient_exec.ResilientPool(1, main=wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="there is a forkserver on Linux only")
def test_a_worker_does_not_import_this_package_anew_with_the_script(run, tmp_path):
    text = """
        import sys
        was_there = "resilient_exec.pool.pool" in sys.modules
        from resilient_exec import ResilientPool
        def found(): return was_there
        if __name__ == "__main__":
            with ResilientPool(1) as pool:
                print(was_there, pool.submit(found).result())
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(text))
    assert run("", command=["program.py"]) == ["False True"]
