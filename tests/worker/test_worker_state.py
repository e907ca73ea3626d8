"""What a worker's process looks like to the tasks in it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from lane_harness import linux_only

from resilient_exec.core.lane_port import Parcel
from resilient_exec.core.messages import AttemptEnded, Begun
from resilient_exec.model.task import Task
from resilient_exec.pool.keys import packed
from resilient_exec.wire.payload import pack_call
from resilient_exec.worker.context import TaskContext

ALLOWED = {"loky", "cloudpickle", "psutil", "resilient_exec", "_missing_stdlib_info"}  # the last is Python 3.15's own


def test_a_worker_imports_nothing_of_others_but_loky_cloudpickle_and_psutil(ready):
    modules = {name.partition(".")[0] for name in ready.value(tasks.modules)}
    # What an interpreter of this environment imports by itself (editable installs, for example) is not ours.
    foreign = {name for name in modules if name.lstrip("_") and name not in sys.stdlib_module_names}
    assert foreign <= ALLOWED | {"lane_tasks", "lane_pickles", "__mp_main__"} | modules_of_a_bare_interpreter()


def modules_of_a_bare_interpreter():
    code = "import sys; print('\\n'.join(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in answer.stdout.split()}


def test_of_our_own_package_a_worker_imports_only_what_it_needs(shared):
    ours = {name for name in shared.value(tasks.modules) if name.startswith("resilient_exec")}
    packages = {"resilient_exec", "resilient_exec.model", "resilient_exec.wire", "resilient_exec.worker"}
    assert ours - packages == {
        "resilient_exec.model.lasting",
        "resilient_exec.model.packed",
        "resilient_exec.model.worker_errors",
        "resilient_exec.wire.buffers",
        "resilient_exec.wire.channel",
        "resilient_exec.wire.explanation",
        "resilient_exec.wire.items",
        "resilient_exec.wire.payload",
        "resilient_exec.wire.pickling",
        "resilient_exec.wire.register",
        "resilient_exec.wire.scratch",
        "resilient_exec.wire.script",
        "resilient_exec.worker.preparation",
        "resilient_exec.worker.chunks",
        "resilient_exec.worker.context",
        "resilient_exec.worker.main",
        "resilient_exec.worker.outcomes",
        "resilient_exec.worker.random_streams",
        "resilient_exec.worker.seat",
        "resilient_exec.worker.serving",
        "resilient_exec.worker.state",
        "resilient_exec.worker.streams",
        "resilient_exec.worker.terminal",
        "resilient_exec.worker.upkeep",
    }


def test_the_worker_draws_no_random_number_between_attempts(shared):
    first = shared.value(tasks.random_state)
    shared.raised(pickles.raise_class, ValueError)
    shared.outcome(pickles.give_lock)
    shared.value(pickles.give_call, int)
    assert shared.value(tasks.random_state) == first


def test_two_workers_do_not_share_their_random_state(ready):
    first = ready.value(tasks.random_state)
    ready.death(tasks.exit_at_once, 0)
    ready.start()
    assert ready.value(tasks.random_state) != first


def test_a_random_state_that_a_task_has_set_is_left_to_the_next(shared):
    shared.value(tasks.seed, 5)
    first = shared.value(tasks.draw)
    shared.value(tasks.seed, 5)
    shared.value(tasks.double, 1)
    assert shared.value(tasks.draw) == first


def test_a_task_knows_its_key_its_attempt_and_the_workers_before(shared):
    parcel = Parcel(pack_call(tasks.context_of_task, (), {}), packed("my key"))
    parcel.pids = (11, 12)
    shared.send_task(Task(10**6 + 1, None, key="my key", cargo=parcel), 3)
    shared.expect(Begun)
    assert shared.expect(AttemptEnded).outcome.value.unpack() == TaskContext("my key", 3, (11, 12))


def test_a_key_that_does_not_pickle_is_seen_by_the_task_as_its_text(shared):
    key = frozenset([test_a_key_that_does_not_pickle_is_seen_by_the_task_as_its_text, lambda: None])
    assert packed(key) is None
    shared.send_task(
        Task(10**6 + 2, None, key=key, name=repr(key), cargo=Parcel(pack_call(tasks.context_of_task, (), {})))
    )
    shared.expect(Begun)
    assert shared.expect(AttemptEnded).outcome.value.unpack().key == repr(key)


@linux_only
def test_a_worker_is_a_child_of_its_parent_does_nothing_on_sigint_and_has_the_default_sigterm(shared):
    parent, on_interrupt, on_termination = shared.value(tasks.parent_and_dispositions)
    assert parent == os.getpid()
    assert on_interrupt.__module__ == "resilient_exec.worker.terminal"  # ignored, it would be inherited by programs
    assert on_termination == signal.SIG_DFL


def test_a_ctrl_c_to_the_workers_group_does_not_touch_the_task(shared, tmp_path):
    shared.begin(tasks.wait_for, str(tmp_path / "go"))
    shared.signal(signal.SIGINT)
    shared.nothing()
    (tmp_path / "go").touch()
    assert shared.ended().value == "waited"


def test_what_a_task_prints_is_out_when_its_outcome_is(capfd, lane):
    lane.start()
    lane.value(print, "printed")
    assert "printed" in capfd.readouterr().out


def test_the_start_method_inside_a_worker_is_the_platforms_default(shared):
    assert shared.value(tasks.start_method) == multiprocessing.get_context(None).get_start_method()


def test_a_thousand_small_attempts_go_through_one_worker(shared):
    for n in range(1000):
        assert shared.value(tasks.double, n) == 2 * n
    assert shared.value(tasks.pid) == shared.pid


FORKSERVER = "import resilient_exec.worker.forkserver, resilient_exec.worker.serving, resilient_exec.worker.script"
POOL = "from resilient_exec import ResilientPool"
OF_WORKERS = {f"resilient_exec.worker.{name}" for name in ("main", "serving", "state", "streams", "upkeep")}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        pytest.param(FORKSERVER, {"dataclasses", "inspect", "tempfile", "pathlib", "cloudpickle"}, id="forkserver"),
        pytest.param(POOL, {"pathlib", "tempfile", "cloudpickle", *OF_WORKERS}, id="program"),
    ],
)
def test_what_takes_long_to_import_and_is_not_needed_for_a_first_result_is_not_imported(code, unwanted):
    script = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not unwanted & set(answer.stdout.split())
