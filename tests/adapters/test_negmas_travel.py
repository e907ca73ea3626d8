"""What all worlds share, on its way to the workers: by value, together, and refused by name."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import types

import pytest

from resilient_exec import NotSendable
from resilient_exec.adapters.negmas import travel


@pytest.fixture
def main(monkeypatch):
    """A ``__main__`` of the user's with a class and a function in it."""
    module = types.ModuleType("__main__")
    code = "class Mine:\n    pass\n\n\nCOUNT = []\n\n\ndef count():\n    COUNT.append(1)\n    return len(COUNT)\n"
    exec(compile(code, "script.py", "exec"), vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_names_are_found_wherever_a_configuration_has_them(main):
    assigned = [[{"agent_types": ["scml.Agent", "adapter:__main__.Mine"], "n": [1, 2.5], "params": ({"f": ["x"]},)}]]

    assert travel.main_names(assigned, {"generator": "__main__.count"}) == {"Mine": main.Mine, "count": main.count}


def test_a_name_that_this_program_does_not_define_is_refused(main):
    """A tournament resumed from another script."""
    with pytest.raises(LookupError, match=r"names '__main__.Yours', but this program defines no 'Yours'"):
        travel.main_names({"competitors": ["__main__.Yours"]})


def test_a_path_that_mentions_main_is_no_name(main):
    assert travel.main_names({"path": "/src/package/__main__.py", "log": "__main__"}) == {}


def test_classes_of_main_arrive_in_main_and_share_their_globals(main, tmp_path):
    """In a process that has never seen the script."""
    packed = travel.pack({"Mine": main.Mine, "count": main.count}, {"callback": main.count, "nothing": None})
    (tmp_path / "packed").write_bytes(packed)
    code = (
        "import pathlib, sys, __main__\n"
        "from resilient_exec.adapters.negmas import travel\n"
        "shared = travel.unpack(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "assert __main__.Mine.__module__ == '__main__' and Mine is __main__.Mine\n"
        "assert [count(), shared['callback'](), count()] == [1, 2, 3]\n"
        "assert shared['nothing'] is None\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, tmp_path / "packed"], check=True)


def holding(what):
    """A callback that needs ``what`` by closure."""
    return lambda: what


class Holder:
    """An object that can't travel."""

    def __init__(self):
        self.fine = 1
        self.lock = threading.Lock()

    def call(self):
        """A method is as heavy as its object."""


@pytest.mark.parametrize(
    ("value", "trail"),
    [
        (holding(threading.Lock()), "variable 'what'"),
        (holding([1, {"deep": threading.Lock()}]), "variable 'what' -> element 1 -> element 'deep'"),
        (Holder(), "attribute 'lock'"),
        (Holder().call, "the object of a bound method -> attribute 'lock'"),
        (functools.partial(print, file=Holder()), "element 'file' -> attribute 'lock'"),
    ],
)
def test_what_cannot_travel_is_named_with_the_way_to_it(value, trail):
    with pytest.raises(NotSendable) as caught:
        travel.pack({}, {"world_generator": print, "world_progress_callback": value})

    assert str(caught.value).startswith("world_progress_callback cannot be sent to a worker process: cannot pickle ")
    assert f"(found at: {trail})" in str(caught.value)


def test_a_competitor_that_cannot_travel_is_named(main):
    main.Mine.shared = threading.Lock()
    with pytest.raises(NotSendable, match=r"the class or function __main__\.Mine cannot .*found at: Mine\.shared"):
        travel.pack({"Mine": main.Mine}, {})


def test_a_global_of_main_that_cannot_travel_is_named(main):
    main.COUNT = threading.Lock()
    with pytest.raises(NotSendable, match=r"tournament's callback cannot .*found at: global 'COUNT'"):
        travel.pack({}, {"the tournament's callback": main.count})
