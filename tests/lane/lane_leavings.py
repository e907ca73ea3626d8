"""Tasks that close descriptors, and tasks that leave processes behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from lane_pickles import PlainError
from lane_tasks import note, note_then, sleep_for_ever, spin_for_ever, wait_for, wait_for_note

# -- descriptors -----------------------------------------------------------------------------------------------------

_kept = []


def close_descriptors_and_open_files(low, high, folder, number):
    """Close what the process has open there; the files opened next get those numbers, and stay open."""
    os.closerange(low, high)
    for i in range(number):
        _kept.append(open(os.path.join(folder, f"file-{i}"), "wb", buffering=0))  # noqa: SIM115  to stay open
    return [file.fileno() for file in _kept]


def close_descriptors_and_buffer(low, high, folder, number):
    """The same, with files that have something to write, which is still in their buffers."""
    os.closerange(low, high)
    for i in range(number):
        _kept.append(open(os.path.join(folder, f"file-{i}"), "wb"))  # noqa: SIM115  to stay open
        _kept[-1].write(b"buffered")
    return [file.fileno() for file in _kept]


def close_descriptors(low, high):
    os.closerange(low, high)


def close_descriptors_and_wait(low, high, path):
    os.closerange(low, high)
    wait_for(path)


def write_into_the_channel(data):
    from resilient_exec.worker import main as worker

    worker.worker.channel._socket.sendall(data)
    sleep_for_ever()


def write_then_return(data, value):
    from resilient_exec.worker import main as worker

    worker.worker.channel._socket.sendall(data)
    return value


def put_own_files_over_all(folder):
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and _link(name):
            os.dup2(os.open(os.path.join(folder, f"file-{name}"), os.O_WRONLY | os.O_CREAT), int(name))


def open_descriptors():
    return {int(fd): _link(fd) for fd in os.listdir("/proc/self/fd")}


def descriptors_of_a_program():
    """What a program sees that is started without closing descriptors."""
    code = (
        "import os\n"
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    if os.path.lexists('/proc/self/fd/' + fd): print(os.readlink('/proc/self/fd/' + fd))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-S", "-c", code], close_fds=False, capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()


def put_own_files_over_the_stacks(folder, told):
    """As it comes about when a task closes all descriptors and opens others; then hang."""
    stacks = [int(fd) for fd in os.listdir("/proc/self/fd") if "resilient-stacks" in _link(fd)]
    for fd in stacks:
        os.dup2(os.open(os.path.join(folder, f"own-{fd}"), os.O_WRONLY | os.O_CREAT), fd)
    note(told, len(stacks))
    spin_for_ever()


def _link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def close_standard_streams():
    sys.stdout.close()
    sys.stderr.close()
    sys.stdout = sys.stderr = None
    return "closed"


# -- processes -------------------------------------------------------------------------------------------------------


def fork_a_child_that_stays(path):
    leave_child(path)
    return "forked"


def fork_a_child_and_spin(path):
    if os.fork() == 0:
        note(path)
    spin_for_ever()


def fork_and_return_twice():
    return os.fork()


def status_of_a_child_that(leaves):
    """Fork a child that leaves the task's code in that way; returns the status that it ends with."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return leaves()


def exit_with_7():
    sys.exit(7)


def exit_with_words():
    sys.exit("that is why")


def exit_plainly():
    sys.exit()


def raise_plainly():
    raise PlainError("why")


def return_plainly():
    return "done"


def fork_and_raise_twice(path):
    if os.fork() == 0:
        note(path)
    else:
        wait_for_note(path)
    raise PlainError("twice")


def leave_and(leave, path, *rest):
    """Leave a process behind; then, all pids noted, its own last, end as the last argument says."""
    *args, how = rest
    leave(path, *args)
    if how == "return":
        return
    note(path)
    if how == "killed by itself":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "_exit(0)":
        os._exit(0)
    sleep_for_ever()


def leave_child(path):
    if os.fork() == 0:
        note(path)
        sleep_for_ever()
    wait_for_note(path)


def leave_daemon(path):
    """Double-forked, into a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(path)
            sleep_for_ever()
        os._exit(0)
    os.wait()
    wait_for_note(path)


def leave_program(path, empty_environment):
    child = subprocess.Popen(["/bin/sleep", "3600"], env={} if empty_environment else None)
    note(path, child.pid)


def leave_orphaned_program(path, empty_environment):
    code = (
        "import os, subprocess, sys\n"
        f"p = subprocess.Popen(['/bin/sleep', '3600'], env={{}} if {empty_environment} else None,\n"
        "    start_new_session=True)\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "os.write(fd, f'{p.pid}\\n'.encode())\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-S", "-c", code, path], check=True)


def wait_then_leave_program_and_die(go, path):
    wait_for(go)
    leave_program(path, empty_environment=True)
    os.kill(os.getpid(), signal.SIGKILL)


def grow_a_chain(path, depth):
    """Each child forks the next and notes itself; all of them stay."""
    for _ in range(depth):
        if os.fork():
            break
        note(path)
    sleep_for_ever()


def fork_on_and_on(path):
    """A child every few milliseconds, faster than one walk through /proc."""
    for _ in range(500):
        if os.fork() == 0:
            note(path)
            sleep_for_ever()
        time.sleep(0.002)
    sleep_for_ever()


def run_a_lane_inside(path):
    from lane_harness import Harness

    inner = Harness()
    inner.start()
    inner.begin(note_then, path, spin_for_ever)
    inner.facts.get()


def run_multiprocessing(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=queue_put, args=(queue, 17))
    process.start()
    answer = queue.get()
    process.join()
    return answer, process.exitcode


def queue_put(queue, value):
    queue.put(value)


def become_session_leader():
    os.setsid()
    sleep_for_ever()
