"""By value: with file, line and source, with annotations that name nothing, and what typing makes."""

from __future__ import annotations

import gc
import linecache
import pickle
import subprocess
import sys
import textwrap
import typing
import weakref

import pytest

from resilient_exec.wire import pickling
from resilient_exec.wire.payload import pack_call, unpack_call


@pytest.fixture
def elsewhere(tmp_path):
    """Unpickles a call in a process that knows nothing of it, calls it, and gives what that prints."""

    def run(fn, *args, code="print(fn(*args))"):
        (tmp_path / "call").write_bytes(pack_call(fn, args, {}))
        program = f"""
            import sys, traceback
            from resilient_exec.wire.payload import unpack_call
            fn, args, _ = unpack_call(open({str(tmp_path / "call")!r}, "rb").read())
            try:
                {code}
            except Exception:
                traceback.print_exc(file=sys.stdout)
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def defined(text, name="fn", filename="<cell 1>"):
    namespace = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(text), filename, "exec", dont_inherit=True), namespace)  # noqa: S102
    return namespace[name]


def test_a_function_of_a_file_shows_file_line_and_source(elsewhere, tmp_path):
    text = "def fn(x):\n    inner = lambda: 1 / x  # this very line\n    return inner()\n"
    (tmp_path / "script.py").write_text(text)
    out = elsewhere(defined(text, filename=str(tmp_path / "script.py")), 0)
    assert f'File "{tmp_path / "script.py"}", line 2, in' in out
    assert "this very line" in out
    assert "dynamic-code" not in out


def test_a_function_of_a_notebooks_cell_shows_the_cell(elsewhere, monkeypatch):
    text = "class Model:\n    def fit(self): raise ValueError('no data')  # this very line\ndef fn(): Model().fit()\n"
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(text), None, text.splitlines(keepends=True), "<cell 1>"))
    out = elsewhere(defined(text))
    assert 'File "<cell 1>", line 2, in fit' in out
    assert "this very line" in out
    data = pack_call(defined(text), (), {})
    assert data.count(b"this very line") == 1


def test_pickling_by_value_keeps_no_reference_to_what_it_has_pickled():
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    gc.disable()
    try:
        pickling.dumps_by_value([held, lambda: 1])
        del held
        assert gone() is None
    finally:
        gc.enable()


NAMES = typing.NewType("NAMES", int)


def test_what_typing_makes_in_main_travels_by_value(elsewhere):
    text = """
        import typing
        UserId = typing.NewType("UserId", int)
        P = typing.ParamSpec("P")
        Ts = typing.TypeVarTuple("Ts")
        def fn(x: UserId, g: typing.Callable[P, int] = print, *rest: typing.Unpack[Ts]) -> UserId:
            return UserId(x)
    """
    assert elsewhere(defined(text), 3) == "3\n"


def test_what_typing_makes_in_a_module_travels_by_name():
    _, (kind, _local), _ = unpack_call(pack_call(print, (NAMES, lambda: 1), {}))
    assert kind is NAMES


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements are of 3.12")
def test_an_alias_of_main_that_names_itself_travels_by_value(elsewhere):
    text = "type Json = dict[str, Json] | int\ndef fn(x: Json) -> Json: return x\n"
    assert elsewhere(defined(text), 3) == "3\n"


UNKNOWN = """
    import dataclasses
    from typing import TYPE_CHECKING, NamedTuple
    if TYPE_CHECKING:
        from numpy import Thing
    def fn(x: Thing, y: int = 1) -> list[Thing]:
        return x
    @dataclasses.dataclass(slots=True)
    class Data:
        thing: Thing
        count: int = 3
        def method(self, x: Thing) -> Thing: return self.count
    class Named(NamedTuple):
        thing: Thing
    class Plain:
        thing: Thing
        @property
        def value(self) -> Thing: return 7
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated late from 3.14")
def test_annotations_that_name_what_is_not_there_travel_as_texts(elsewhere):
    assert elsewhere(defined(UNKNOWN), 1) == "1\n"
    code = "print(fn.__annotations__['x'], fn.__annotations__['y'], fn.__annotations__['return'])"
    assert elsewhere(defined(UNKNOWN), 1, code=code) == "Thing <class 'int'> list[Thing]\n"
    Data, Named, Plain = (defined(UNKNOWN, name) for name in ("Data", "Named", "Plain"))
    assert elsewhere(Data, 1, code="print(fn(1).method(2), fn.__annotations__['thing'])") == "3 Thing\n"
    assert elsewhere(Data(1).method, 2) == "3\n"
    assert elsewhere(Named, 1, code="print(fn(1).thing)") == "1\n"
    assert elsewhere(Plain, code="print(fn().value, fn.__annotations__)") == "7 {'thing': 'Thing'}\n"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated late from 3.14")
def test_the_function_itself_is_left_as_it_is():
    fn = defined(UNKNOWN)
    pack_call(fn, (1,), {})
    with pytest.raises(NameError):
        fn.__annotations__


def test_cloudpickle_has_the_private_names_that_are_used():
    from cloudpickle import cloudpickle

    assert callable(cloudpickle._dynamic_class_reduce)
    assert callable(cloudpickle._class_setstate)
    assert callable(cloudpickle.Pickler._dynamic_function_reduce)
    code = (lambda: 1).__code__
    assert "<dynamic-code>" in cloudpickle.Pickler.dispatch_table[type(code)](code)[1]
    assert pickle.loads(pickling.dumps_by_value(lambda: 5))() == 5
