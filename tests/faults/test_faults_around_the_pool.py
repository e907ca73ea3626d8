"""Faults around the pool: of its program, its trackers, its folders, the limits of its user.

Held elsewhere, and not repeated here: Ctrl-C once, twice and again, SIGTERM, a hang at exit (``tests/pool/
test_shutdown.py``); exceptions in a done-callback, ``submit`` from one, callbacks that block for ever
(``test_contract_futures.py``); an exception in an observer, observers that block or print to a pipe that nobody reads,
the parent stopped beyond every deadline and continued (``test_laws_waiting.py``); the interpreter's exit without
shutdown, a dropped pool, a forked parent (``test_contract_end.py``); SIGCHLD ignored, no pidfd, no /proc
(``tests/lane/test_fallbacks.py``); the death of the guard (``tests/process/test_orphan_guard.py``).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import fault_script as faults
import fault_tasks as tasks
import pytest
from fault_script import NOT_ALLOWED
from fault_table import LINUX

from resilient_exec import ResilientPool, TaskKilled

DEADLINE = 120  # s

pytestmark = pytest.mark.skipif(not LINUX, reason="what is done to the program is Linux's own")

PROGRAM = """
    import datetime, os, resource, signal, sys, threading, time
    {first}
    from resilient_exec import PoolBroken, ResilientPool
    import fault_script as faults, fault_tasks as tasks
    from fault_script import all_is_well, contained, tracker_of

    if __name__ == "__main__":
        {before}
        with ResilientPool(2, timeout=30, retry=1, start_patience=1{options}) as pool:
            {during}
"""


def program(*, first="", before="", options="", during="all_is_well(pool)"):
    """The text of a script; what is to be done may have several lines."""
    return PROGRAM.format(
        first=first.replace("\n", "\n" + 4 * " "),
        before=before.replace("\n", "\n" + 8 * " "),
        options=options and ", " + options,
        during=during.replace("\n", "\n" + 12 * " "),
    )


def finish(script, ended):
    """The script has ended as it should, with all that it had started; or may not do here what it has to."""
    status = ended(script)
    if status == NOT_ALLOWED:
        pytest.skip("this user may not mount")
    assert status == 0, script.err


# -- what the pool contains all the same -----------------------------------------------------------------------------

STOP = "contained(pool, 'executed')\npid = tracker_of({who!r})\nos.kill(pid, signal.{signal})\nall_is_well(pool)"
BESET = {
    "loky's resource tracker is killed": {"during": STOP.format(who="loky", signal="SIGKILL")},
    "multiprocessing's resource tracker is killed": {"during": STOP.format(who="mp", signal="SIGKILL")},
    "loky's resource tracker is stopped": {"during": STOP.format(who="loky", signal="SIGSTOP")},
    "multiprocessing's resource tracker is stopped": {"during": STOP.format(who="mp", signal="SIGSTOP")},
    "there is no room for semaphores": {"before": "faults.hidden_mount('/dev/shm')\nfaults.fill('/dev/shm')"},
    "the temporary folder is full": {
        "before": "os.environ['TMPDIR'] = faults.hidden_mount(os.path.abspath('tmp'))\nfaults.fill('tmp')"
    },
    "the temporary folder becomes full while output is captured": {
        "options": "output='capture'",
        "before": "os.environ['TMPDIR'] = faults.hidden_mount(os.path.abspath('tmp'))",
        "during": "contained(pool, 'executed')\nfaults.fill('tmp')\nall_is_well(pool)",
    },
    "the temporary folder is read-only": {
        "before": "os.environ['TMPDIR'] = faults.hidden_mount(os.path.abspath('tmp'), read_only=True)"
    },
    "the temporary folder is missing": {"before": "os.environ['TMPDIR'] = '/no/such/folder'"},
    "files may have 4 KiB": {"before": "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"},
    "the wall clock is set back while tasks run": {
        "during": """
contained(pool, 'executed')
real, begin = time.time, time.time()
time.time = lambda: begin - 86400 - (real() - begin)  # it even runs backwards
time.time_ns = lambda: int(time.time() * 1e9)
class Past(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(1999, 1, 1, tzinfo=tz)
    utcnow = now
datetime.datetime = Past
all_is_well(pool)
""".strip()
    },
    "the main module cannot be imported in a worker": {
        "options": "main='value'",
        "first": "if os.environ.get('IMPORTED_ONCE'):\n    import no_such_module\nos.environ['IMPORTED_ONCE'] = 'yes'",
    },
    "descriptor 2 is closed, as a daemon's may be": {"before": "sys.stderr = None\nos.close(2)"},
    "the standard streams are closed": {"before": "sys.stdin.close()\nsys.stdout.close()"},
    "there are no standard streams": {"before": "sys.stdin = sys.stdout = sys.stderr = None"},
    "another thread hangs in a print that nobody reads": {
        "before": "read, write = os.pipe()\nos.dup2(write, 1)\n"
        "threading.Thread(target=print, args=('x' * 1_000_000,), kwargs={'flush': True}, daemon=True).start()\n"
        "faults.until_full(write)",
        "during": "all_is_well(pool)\nos.close(read)\nos.close(write)\nos.close(1)",
    },
    "the environment is empty": {"before": "os.environ.clear()"},
}


@pytest.mark.parametrize("what", BESET)
def test_the_pool_contains_faults_also_when(start_script, ended, what):
    script = start_script(program(**BESET[what]))
    finish(script, ended)
    assert (script.folder / "well").exists()


def test_a_resource_tracker_that_is_stopped_is_replaced_when_its_pipe_is_full(start_script, ended):
    """Each start of a worker tells it a kilobyte; with a full pipe the next start would hang."""
    script = start_script(
        program(
            during="""
contained(pool, 'executed')
os.kill(tracker_of('loky'), signal.SIGSTOP)
for future in [pool.submit(tasks.exit_at_once, 1) for _ in range(10)]:
    future.exception()
all_is_well(pool)
""".strip()
        )
    )
    finish(script, ended)
    assert (script.folder / "well").exists()


# -- what breaks a pool, in so many words ----------------------------------------------------------------------------

BREAKING = {
    "files may have no byte": ({"before": "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"}, "File too large"),
    "the program's folder is gone": (
        {"before": "os.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')"},
        "the working directory of this process has been removed",
    ),
    "there is no interpreter": (
        {"before": "import multiprocessing; multiprocessing.set_executable('/no/such/python')"},
        "/no/such/python' is no program",
    ),
}


@pytest.mark.parametrize("what", BREAKING)
def test_every_task_settles_with_the_systems_words_when(start_script, ended, what):
    given, words = BREAKING[what]
    finish(start_script(program(**given, during=f"faults.broken(pool, {words!r})")), ended)


# -- out of descriptors, processes, threads ----------------------------------------------------------------------------


def test_without_a_descriptor_left_one_death_costs_its_lane_and_no_more_until_there_are_some_again(start_script, ended):
    script = start_script(
        program(
            before="resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))",
            during="""
faults.up(pool)
with faults.no_descriptors():
    hang = pool.options(timeout=0.3).submit(tasks.spin)
    futures = [pool.submit(tasks.healthy, 'while', number) for number in range(8)]
    assert type(hang.exception(60)).__name__ == 'TaskTimeout', hang.exception()
    assert [future.result(60) for future in futures] == [2 * number for number in range(8)]
all_is_well(pool)
""".strip(),
        )
    )
    finish(script, ended)
    assert (script.folder / "well").exists()


@pytest.mark.parametrize("keep", [0, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, 18, 24, 36, 48))])
def test_with_too_few_descriptors_for_a_worker_every_task_settles_all_the_same(start_script, ended, keep):
    text = f"with faults.no_descriptors({keep}):\n    faults.well_or_broken(pool)"
    finish(start_script(program(before="resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))", during=text)), ended)


def as_another_user():
    """The command under which a process is not root's, for whom there is no limit of processes, but may read all."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root has no limit of processes, and there is no setpriv")
    capabilities = "+dac_override,+dac_read_search"
    number = 40_000 + os.getpid() % 20_000  # a user that nobody else is: its processes are counted
    user = (f"--reuid={number}", f"--regid={number}", "--clear-groups")
    return ("setpriv", *user, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}")


def test_without_a_process_slot_one_death_costs_its_lane_and_no_more_until_there_are_some_again(start_script, ended):
    script = start_script(
        program(
            during="""
faults.up(pool)
with faults.few_processes(0):
    hang = pool.options(timeout=0.3).submit(tasks.spin)
    futures = [pool.submit(tasks.healthy, 'while', number) for number in range(8)]
    assert type(hang.exception(60)).__name__ == 'TaskTimeout', hang.exception()
    assert [future.result(60) for future in futures] == [2 * number for number in range(8)]
all_is_well(pool)
""".strip()
        ),
        under=as_another_user(),
    )
    finish(script, ended)
    assert (script.folder / "well").exists()


@pytest.mark.parametrize("more", [0, 1, 3, 6, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 5, 7, 8, 10))])
def test_with_too_few_processes_and_threads_every_task_settles_or_is_refused(start_script, ended, more):
    """A thread counts as a process; without one a pool cannot even be made, which its maker is told."""
    text = f"""
from resilient_exec import PoolBroken, ResilientPool
import fault_script as faults, fault_tasks as tasks

if __name__ == "__main__":
    try:
        with faults.few_processes({more}), ResilientPool(2, timeout=30, retry=1, start_patience=1) as pool:
            faults.well_or_broken(pool)
    except RuntimeError as error:
        assert "thread" in str(error), error
    with ResilientPool(2, timeout=30, retry=1, start_patience=1) as pool:
        faults.all_is_well(pool)
"""
    script = start_script(text, under=as_another_user())
    finish(script, ended)
    assert (script.folder / "well").exists()


# -- the end of the program --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "tasks.read_address_zero()"])
def test_nothing_lives_on_when_the_program_dies_with_its_workers_busy(start_script, ended, how):
    """One holds the GIL in C, one has two generations of children; workers, children and guard are gone."""
    script = start_script(
        program(
            first="def busy(fn, name):\n    import fault_tasks\n    fault_tasks.note(name, 'busy')\n    fn()",
            during=f"""
for name, fn in (('one', tasks.burn_in_c), ('two', tasks.hang_with_children)):
    pool.submit(busy, fn, name)
while not (os.path.exists('one') and os.path.exists('two')):
    time.sleep(0.01)
{how}
""".strip(),
        )
    )
    assert ended(script) in (-signal.SIGKILL, 3, -signal.SIGSEGV)
    assert (script.folder / "one").exists()


@pytest.mark.parametrize("end", ["pool.shutdown()", "pass"])
def test_callbacks_and_observers_that_block_for_ever_keep_no_program_from_ending(start_script, ended, end):
    """They are waited for, at the end, for as long as is said here."""
    script = start_script(f"""
        import threading
        from resilient_exec import ResilientPool
        from resilient_exec.supervisor import loop as supervisor
        import fault_script as faults, fault_tasks as tasks

        called = threading.Semaphore(0)

        def block(_):
            called.release()
            threading.Event().wait()

        if __name__ == "__main__":
            supervisor._JOIN_TIMEOUT = 0.1
            pool = ResilientPool(2, timeout=30, retry=1, observers=[block, block])
            pool.submit(tasks.take, 1).add_done_callback(block)
            for _ in range(3):
                called.acquire()
            faults.all_is_well(pool)
            {end}
    """)
    finish(script, ended)
    assert (script.folder / "well").exists()


# -- pools in tasks and in threads -------------------------------------------------------------------------------------


def test_a_pool_in_a_worker_of_another_contains_its_own_faults(make_pool, tmp_path):
    outer = make_pool(2, timeout=60, retry=1)
    path = str(tmp_path / "beside")
    inner = outer.submit(faults.pool_inside, str(tmp_path))
    beside = [outer.submit(tasks.healthy, path, number) for number in range(4)]
    assert inner.result(60) == "contained"
    assert [future.result(60) for future in beside] == [0, 2, 4, 6]


def test_a_pool_in_a_worker_ends_with_its_task_when_that_is_killed(make_pool, tmp_path):
    """With its workers, its guard, and what they have started: looked at behind the test."""
    outer = make_pool(1, retry=1)
    future = outer.submit(faults.hang_inside, str(tmp_path / "path"))
    while not (tmp_path / "path").exists():
        assert not future.done(), future.exception()
        time.sleep(0.01)
    future.kill()
    assert type(future.exception(60)) is TaskKilled
    assert outer.submit(tasks.take, 1).result(60) == "taken"


def test_pools_in_several_threads_contain_each_its_own_faults(tmp_path):
    def run(number):
        with ResilientPool(1, timeout=30, retry=1) as pool:
            faults.contained(pool, str(tmp_path / f"executed{number}"))

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(run, number) for number in range(3)]:
            future.result(DEADLINE)
