"""A task may close what it likes: it harms itself at most, never a file of its own, a neighbour or the next task."""

from __future__ import annotations

import os
import signal

import lane_leavings as leavings
import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from lane_harness import Harness, alive, linux_only, until

from resilient_exec.model.task import Returned
from resilient_exec.worker.seat import CHANNEL_LOST_STATUS

pytestmark = linux_only

FILES = 70  # more than there are numbers from 3 to 64


def contents(folder):
    return {path.read_bytes() for path in folder.glob("file-*")}


def test_a_task_that_closes_3_to_64_and_opens_files_there_harms_neither_the_files_nor_the_next_tasks(ready, tmp_path):
    numbers = ready.value(leavings.close_descriptors_and_open_files, 3, 65, str(tmp_path), FILES)
    assert set(range(3, 65)) <= set(numbers)
    for n in range(20):
        assert ready.value(tasks.double, n) == 2 * n
    assert ready.value(pickles.give, b"x" * 500_000) == b"x" * 500_000
    assert ready.value(tasks.pid) == ready.pid
    assert contents(tmp_path) == {b""}


def test_nobody_takes_a_worker_for_dead_whose_task_closed_its_descriptors(ready, tmp_path):
    ready.value(leavings.close_descriptors, 3, 65)
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    (tmp_path / "go").touch()
    assert ready.ended() == Returned("waited")


def test_a_worker_whose_task_closed_3_to_64_ends_in_peace_and_writes_nothing_into_the_files_there(ready, tmp_path):
    ready.value(leavings.close_descriptors_and_open_files, 3, 65, str(tmp_path), FILES)
    ready.stop()
    assert ready.gone() == ""
    assert contents(tmp_path) == {b""}


def test_what_a_task_has_buffered_for_a_file_that_took_a_closed_number_is_written_when_its_worker_ends(ready, tmp_path):
    numbers = ready.value(leavings.close_descriptors_and_buffer, 3, 65, str(tmp_path), FILES)
    assert set(range(3, 65)) <= set(numbers)
    ready.stop()
    assert ready.gone() == ""
    assert contents(tmp_path) == {b"buffered"}


def test_a_tasks_semaphore_is_told_to_its_tracker_and_not_to_a_file_that_took_a_closed_number(ready, tmp_path):
    ready.value(leavings.close_descriptors_and_open_files, 3, 65, str(tmp_path), FILES)
    assert ready.value(leavings.run_multiprocessing, "spawn") == (17, 0)
    assert contents(tmp_path) == {b""}


def test_a_worker_whose_task_closed_3_to_64_is_killed_as_any_other_and_tells_its_stacks(ready, tmp_path):
    ready.value(leavings.close_descriptors_and_open_files, 3, 65, str(tmp_path), FILES)
    ready.begin(tasks.spin_for_ever)
    until(lambda: "in spin_for_ever" in ready.stacks_now())
    ready.kill()
    assert "in spin_for_ever" in ready.died().evidence.stacks
    assert contents(tmp_path) == {b""}


def test_a_task_that_closes_all_descriptors_is_a_death_with_the_reason_named(ready):
    died = ready.death(leavings.close_descriptors, 3, 65536)
    assert died.exitcode == CHANNEL_LOST_STATUS
    assert "closed descriptors that belong to the pool" in died.why
    ready.start()
    ready.still_works()


def test_a_task_that_puts_its_own_files_on_all_descriptors_finds_nothing_of_ours_in_them(ready, tmp_path):
    died = ready.death(leavings.put_own_files_over_all, str(tmp_path))
    assert died.exitcode == CHANNEL_LOST_STATUS
    assert len(list(tmp_path.glob("file-*"))) > 3
    assert contents(tmp_path) == {b""}


def test_a_task_that_closes_all_descriptors_and_runs_on_does_not_keep_its_lane_busy(ready, tmp_path):
    ready.begin(leavings.close_descriptors_and_wait, 3, 65536, str(tmp_path / "go"))
    until(lambda: ready.lane.lease.hung_up)
    until(lambda: ready.wait_in_thread() <= {ready.loop._near.fileno()})
    (tmp_path / "go").touch()
    assert ready.died().exitcode == CHANNEL_LOST_STATUS


def test_a_task_that_closes_all_descriptors_and_hangs_is_killed(ready, tmp_path):
    ready.begin(leavings.close_descriptors_and_wait, 3, 65536, str(tmp_path / "never"))
    until(lambda: ready.lane.lease.hung_up)
    ready.kill()
    died = ready.died()
    assert died.exitcode == -signal.SIGKILL
    assert died.evidence.stacks == ""


def test_a_neighbours_worker_is_untouched_by_a_task_that_closes_everything(ready):
    other = Harness()
    try:
        other.start()
        ready.death(leavings.close_descriptors, 3, 65536)
        assert other.value(tasks.pid) == other.pid
        assert alive(other.pid)
    finally:
        other.end()


def test_a_worker_holds_one_channel_its_own(ready):
    other = Harness()
    try:
        other.start()
        for harness in (ready, other):
            links = harness.value(leavings.open_descriptors)
            assert sum(link.startswith("socket:") for link in links.values()) == 1
            assert sum("resilient-stacks" in link for link in links.values()) == 1
    finally:
        other.end()


def test_our_descriptors_in_a_worker_are_high_and_no_program_inherits_them(ready):
    links = ready.value(leavings.open_descriptors)
    ours = [fd for fd, link in links.items() if link.startswith("socket:") or "resilient-stacks" in link]
    assert len(ours) == 2
    assert all(fd > 64 for fd in ours)
    inherited = ready.value(leavings.descriptors_of_a_program)
    assert not any(link.startswith("socket:") or "resilient" in link for link in inherited), inherited


def test_inheritable_descriptors_of_the_parent_do_not_reach_the_worker(lane, tmp_path):
    with open(tmp_path / "mine", "w") as mine:
        os.set_inheritable(mine.fileno(), True)
        lane.start()
        assert str(tmp_path / "mine") not in lane.value(leavings.open_descriptors).values()


def test_of_the_channel_and_the_files_the_parent_keeps_none_inheritable(ready):
    lease = ready.lane.lease
    for fd in (lease.socket.fileno(), lease._stacks):
        assert not os.get_inheritable(fd)
    assert lease._far_socket.fileno() == -1


@pytest.mark.parametrize("limit", [100, 300])
def test_a_worker_with_a_low_limit_of_descriptors_starts_and_works(lane, limit):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        lane.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    lane.still_works()
