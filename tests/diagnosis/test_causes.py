"""The diagnosers on facts: what is named, and what is not for want of one piece of evidence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from resilient_exec.diagnosis.causes import diagnose
from resilient_exec.diagnosis.facts import Death, Frame, Lock, Pool, Process, Scene, Thread, Wait
from resilient_exec.diagnosis.render import Finding, markdown, plain, shorten
from resilient_exec.diagnosis.stacks import handled_signals

LIB = "/usr/lib/python3.12"
ROOT = Process(1, 0, ("python", "script.py"), "the program", threads=(Thread(1),), version=(3, 12, 1))


def scene(*processes, **more):
    return Scene(at=100.0, root=1, processes=processes or (ROOT,), still=30.0, idle=30.0, **more)


def name(seen):
    cause = diagnose(seen)
    return cause.name if cause is not None else None


# -- an executor that has lost its workers

STUCK = Pool(1, "ProcessPoolExecutor", done=320, running=33, pending=403, max_workers=32, max_tasks=10)


def test_the_figures_of_the_hang_that_started_it():
    cause = diagnose(scene(pools=(STUCK,)))
    assert cause.name == "gh-115634"
    assert "320 done, 33 running, 403 pending" in cause.evidence[0]
    assert any("10 tasks for each of 32 workers" in text for text in cause.evidence)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tasks": None},
        {"running": 0, "pending": 0},
        {"kind": "loky"},
        {"more": {"broken": True}},
        {"workers": (2,)},
    ],
)
def test_an_executor_of_which_one_thing_differs_is_not_called_so(changes):
    worker = Process(2, 1, ("python", "-c", "spawn_main"), threads=(Thread(2),))
    assert name(scene(ROOT, worker, pools=(replace(STUCK, **changes),))) is None


def test_a_worker_that_is_dead_but_not_reaped_is_none():
    zombie = Process(2, 1, ("python",), state="Z")
    assert name(scene(ROOT, zombie, pools=(replace(STUCK, workers=(2,)),))) == "gh-115634"


# -- locks


def waiting(tid, wants, holds, owner=None, *, file="/app/script.py"):
    locks = tuple(Lock(f"lock{number}", "lock", number, is_locked=True, owner=owner) for number in {wants, *holds})
    frame = Frame(
        file, 5, "work", locks, holds=tuple((number, f"lock{number} since line 4") for number in holds), wants=wants
    )
    return Thread(tid, wait=Wait("futex"), name=f"T{tid}", frames=(frame,), ident=tid * 10)


def test_a_circle_of_locks_is_a_deadlock():
    process = replace(ROOT, threads=(Thread(1), waiting(2, 100, [200]), waiting(3, 200, [100])))
    cause = diagnose(scene(process))
    assert cause.name == "lock-deadlock"
    assert "T2 waits" in " ".join(cause.evidence)


@pytest.mark.parametrize(
    "threads",
    [
        (waiting(2, 100, [200]), waiting(3, 300, [100])),  # the second waits for somebody else's
        (waiting(2, 100, []), waiting(3, 100, [])),  # who holds it is not known
        (replace(waiting(2, 100, [200]), wait=Wait("futex", is_timed=True)), waiting(3, 200, [100])),
        (waiting(2, 100, [200], file=f"{LIB}/threading.py"), waiting(3, 200, [100], file=f"{LIB}/threading.py")),
    ],
)
def test_without_a_circle_there_is_none(threads):
    assert name(scene(replace(ROOT, threads=(Thread(1), *threads)))) is None


def test_a_lock_that_knows_its_owner_needs_no_source():
    first = replace(waiting(2, 100, []), frames=(replace(waiting(2, 100, [], owner=30).frames[0], holds=()),))
    second = replace(waiting(3, 200, []), frames=(replace(waiting(3, 200, [], owner=20).frames[0], holds=()),))
    assert name(scene(replace(ROOT, threads=(Thread(1), first, second)))) == "lock-deadlock"


# -- queues


def at_queue_lock(pid):
    frames = (
        Frame(f"{LIB}/multiprocessing/synchronize.py", 95, "__enter__"),
        Frame(f"{LIB}/multiprocessing/queues.py", 101, "get"),
        Frame("/app/script.py", 3, "consume"),
    )
    thread = Thread(pid, wait=Wait("futex", shared="/dev/shm/sem#7+0"), frames=frames)
    return Process(pid, 1, ("python",), threads=(thread,), version=(3, 12, 1))


def reading(pid):
    frames = (
        Frame(f"{LIB}/multiprocessing/connection.py", 395, "_recv"),
        Frame(f"{LIB}/multiprocessing/queues.py", 103, "get"),
    )
    thread = Thread(pid, wait=Wait("read", 3, "pipe:[9]"), frames=frames)
    return Process(pid, 1, ("python",), threads=(thread,), version=(3, 12, 1))


PLACED = replace(ROOT, threads=(Thread(1, frames=(Frame("/app/script.py", 20, "main"),)),))


def test_a_lock_that_nobody_who_lives_can_hold_is_that_of_a_dead_one():
    assert name(scene(PLACED, at_queue_lock(2), at_queue_lock(3))) == "lock-of-the-dead"


def test_a_lock_that_somebody_may_hold_is_not():
    assert name(scene(PLACED, at_queue_lock(2), reading(3))) is None
    assert name(scene(ROOT, at_queue_lock(2))) is None, "where the program stands is not known"


# -- pipes

JOINS = (Frame(f"{LIB}/multiprocessing/popen_fork.py", 27, "poll"), Frame("/app/script.py", 9, "main", text="p.join()"))


def writing(pid, fd=5):
    frames = (
        Frame(f"{LIB}/multiprocessing/connection.py", 373, "_send"),
        Frame(f"{LIB}/multiprocessing/queues.py", 270, "_feed"),
    )
    thread = Thread(pid, wait=Wait("write", fd, "pipe:[9]"), frames=frames)
    return Process(pid, 1, ("python",), "child", threads=(thread,), fds={fd: ("pipe:[9]", "w")})


def reader(*frames, call="wait4"):
    return replace(ROOT, threads=(Thread(1, wait=Wait(call), frames=frames),), fds={4: ("pipe:[9]", "r")})


def test_a_full_pipe_whose_reader_waits_for_the_writer():
    cause = diagnose(scene(reader(*JOINS), writing(2)))
    assert cause.name == "full-pipe"
    assert "p.join()" in " ".join(cause.evidence)


def test_a_full_pipe_whose_reader_does_something_else_is_none_of_ours():
    busy = reader(Frame("/app/script.py", 9, "main"), call="clock_nanosleep")
    assert name(scene(busy, writing(2))) is None


def test_a_pipe_that_nobody_else_has_and_output_that_nobody_reads():
    assert name(scene(ROOT, writing(2))) == "full-pipe"
    cause = diagnose(scene(ROOT, writing(2, fd=1), readers={"pipe:[9]": ("77 (less, stopped)",)}))
    assert cause.name == "output-not-read"
    assert "77 (less, stopped)" in cause.evidence[1]


# -- forks, the kernel, deaths


def forked(**changes):
    place = Frame("/app/script.py", 8, "work")
    thread = Thread(2, wait=Wait("futex", **changes), frames=(place,))
    return Process(2, 1, ("python", "script.py"), "forked child", threads=(thread,), is_forked=True, lost_threads=1)


def test_a_forked_child_whose_only_thread_waits_within_itself():
    assert name(scene(PLACED, forked())) == "fork-with-locks-held"
    assert name(scene(PLACED, forked(is_timed=True))) is None
    assert name(scene(PLACED, forked(shared="/dev/shm/sem#1+0"))) is None
    assert name(scene(PLACED, replace(forked(), is_forked=False))) is None
    assert name(scene(PLACED, replace(forked(), lost_threads=0))) is None  # it can only wait for what it has made
    assert name(scene(PLACED, replace(forked(), lost_threads=None))) is None
    two = replace(PLACED, threads=(*PLACED.threads, Thread(9)))
    assert name(scene(two, replace(forked(), lost_threads=None))) == "fork-with-locks-held"


def test_what_the_kernel_says():
    died = Death(7, 3.0, "worker of multiprocessing.Pool in 1", 1, -9, 2.0)
    assert name(scene(PLACED, replace(forked(), state="T"))) == "stopped"
    assert name(scene(PLACED, deaths=(died,), oom_kills=1)) == "out-of-memory"
    assert name(scene(PLACED, deaths=(replace(died, exit_code=0),), oom_kills=1)) is None
    assert name(scene(PLACED, deaths=(died,))) is None
    assert name(scene(PLACED, deaths=(died,), oom_kills=1, oom_victims={7: "Killed process 7"})) == "out-of-memory"
    assert name(scene(PLACED, deaths=(died,), oom_kills=1, oom_victims={8: "Killed process 8"})) is None
    pool = Pool(1, "multiprocessing.Pool", done=7, pending=1, max_workers=2, more={"created": 3})
    assert name(scene(PLACED, pools=(pool,), oom_kills=1)) == "out-of-memory", "a worker that died before any look"
    assert name(scene(PLACED, pools=(replace(pool, more={"created": 2}),), oom_kills=1)) != "out-of-memory"
    assert name(scene(PLACED, pools=(pool,))) != "out-of-memory"
    throttled = "its cgroup was denied the CPU for 80%"
    assert name(scene(PLACED, throttled=throttled)) == "throttled"
    assert name(scene(PLACED, throttled=throttled, busy={PLACED.pid: 1.0})) is None  # more threads than CPUs, all used


def test_workers_that_die_at_their_start():
    words = "ModuleNotFoundError: No module named 'mine'"
    died = tuple(Death(n, 1.0, "child", 1, 1, 0.2, words, "start: <string>, line 1") for n in range(10, 14))
    pool = Pool(1, "multiprocessing.Pool", done=0, pending=4, max_workers=2)
    assert name(scene(PLACED, pools=(pool,), deaths=died)) == "workers-die-at-start"
    assert name(scene(PLACED, pools=(pool,), deaths=died[:2])) is None
    assert name(scene(PLACED, deaths=died)) is None, "nobody waits for them"


def test_the_handler_of_results_is_dead():
    pool = Pool(
        1, "multiprocessing.Pool", pending=4, more={"handlers": {"workers": True, "tasks": True, "results": False}}
    )
    assert name(scene(PLACED, pools=(pool,))) == "result-handler-dead"
    alive = replace(pool, more={"handlers": {"workers": True, "tasks": True, "results": True}})
    assert name(scene(PLACED, pools=(alive,))) is None
    closed = replace(pool, more={"handlers": {"workers": False, "tasks": False, "results": False}})
    assert name(scene(PLACED, pools=(closed,))) is None


# -- stacks


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_signal_that_faulthandler_may_have_is_named_and_not_sent():
    script = "import signal, sys, time; signal.signal(signal.SIGUSR1, print); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        program.stdout.readline()
        try:
            assert f"`kill -USR1 {program.pid}`" in handled_signals(program.pid)
            assert program.poll() is None
        finally:
            program.kill()
    assert handled_signals(program.pid) == ""


def test_workers_that_have_not_been_at_work_yet_have_not_left_either():
    assert name(scene(PLACED, pools=(replace(STUCK, done=9),))) is None
    assert name(scene(PLACED, pools=(replace(STUCK, done=10),))) == "gh-115634"


# -- negmas


def test_a_tournament_is_named_with_the_command_that_goes_on():
    frame = Frame("/x/site-packages/negmas/tournaments/tournaments.py", 1300, "_run_parallel", path="/home/me/night")
    process = replace(ROOT, command=("python", "night.py", "--fast"), threads=(Thread(1, frames=(frame,)),))
    cause = diagnose(scene(process, pools=(STUCK,)))
    assert cause.evidence[-1] == "a negmas tournament in /home/me/night: 320 worlds done, 436 pending"
    assert cause.remedy[0].endswith("resilient-exec run night.py --fast")


def test_of_a_tournament_that_scml_began_what_is_done_can_be_kept():
    frames = (
        Frame("/x/site-packages/negmas/tournaments/tournaments.py", 1300, "_run_parallel", path="/my home/t/stage-1"),
        Frame("/x/site-packages/scml/utils.py", 3280, "anac2024_oneshot"),
    )
    process = replace(ROOT, command=("python", "night.py"), threads=(Thread(1, frames=frames),))
    cause = diagnose(scene(process, pools=(STUCK,)))
    assert cause.remedy[0].endswith("resilient-exec scml oneshot --resume --output '/my home/t'")
    assert cause.remedy[1].endswith("resilient-exec run night.py")


# -- text


def test_a_report_has_its_parts_and_no_personal_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    frame = Frame("/home/alice/project/script.py", 7, "simulate", text="lock.acquire()")
    process = replace(ROOT, threads=(Thread(1, wait=Wait("futex"), frames=(frame,)),))
    seen = scene(process, pools=(STUCK,))
    finding = Finding("stall", seen, diagnose(seen))
    text = markdown(finding, ["command: `python script.py`"])
    assert text.startswith("## STALL [gh-115634]: ")
    for part in (
        "### Evidence",
        "### What to do",
        "### Pools",
        "```text",
        "~/project/script.py",
        "simulate: lock.acquire()",
    ):
        assert part in text
    assert "alice" not in text
    assert "STALL [gh-115634]" in plain(finding)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/alice/a.py", "~/a.py"),
        ('File "/opt/venv/lib/python3.12/site-packages/x/y.py"', 'File ".../site-packages/x/y.py"'),
        ("/usr/lib/python3.12/threading.py", ".../python3.12/threading.py"),
        ("/home/bob/b.py", "/home/USER/b.py"),
        ("/Users/bob/b.py", "/Users/USER/b.py"),
        ("pipe:[123] and 3/4", "pipe:[123] and 3/4"),
    ],
)
def test_paths_are_shortened(text, short, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    assert shorten(text) == short
