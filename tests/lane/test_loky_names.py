"""What we use of loky to start a worker, private names among it: a version that changes one of them is told here."""

from __future__ import annotations

import inspect
import sys
from importlib import metadata

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there loky's start is used as it is")


def test_the_version_is_one_that_the_bound_in_pyproject_allows():
    (bound,) = (one for one in metadata.requires("resilient-exec") or () if one.startswith("loky"))
    assert bound.replace(" ", "") in {"loky<3.8,>=3.7", "loky>=3.7,<3.8"}
    assert metadata.version("loky").startswith("3.7.")


def test_the_process_object_takes_what_we_give_and_has_what_its_start_needs():
    from loky.backend.process import LokyProcess

    process = LokyProcess(target=int, args=(), env={"A": "1"})
    assert process.env == {"A": "1"}
    assert process.init_main_module is False
    assert process._name


def test_popen_waits_for_the_process_by_its_pid_alone():
    from loky.backend.popen_loky_posix import Popen

    assert "self.sentinel" not in inspect.getsource(Popen.poll)
    assert "os.waitpid(self.pid, flag)" in inspect.getsource(Popen.poll)


def test_the_child_side_reads_all_from_a_descriptor_and_leaves_by_its_exit_code():
    from loky.backend import popen_loky_posix

    source = inspect.getsource(popen_loky_posix)
    for words in ("--pipe", "--process-name", "spawn.prepare(prep_data)", "process_obj._bootstrap()"):
        assert words in source


def test_the_parents_side_has_the_functions_that_we_call():
    from loky.backend import fork_exec, reduction, resource_tracker, spawn

    prepared = spawn.get_preparation_data("a name", False)
    assert prepared["tracker_fd"] == resource_tracker._resource_tracker.getfd()
    assert prepared["mp_tracker_fd"] >= 0
    assert list(inspect.signature(fork_exec.fork_exec).parameters) == ["cmd", "keep_fds", "env"]
    assert callable(reduction.dump)
    assert callable(reduction.dumps)
    assert isinstance(reduction.get_loky_pickler(), type)
