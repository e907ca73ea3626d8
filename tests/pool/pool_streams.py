"""What the tests of standard streams and of scratch directories run in workers."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import threading
import time

from pool_tasks import kill_self, note

from resilient_exec import task_context


def print_by_c(text):
    ctypes.CDLL(None).printf(text.encode())


def say_half_and_die():
    print("progress: 41 %", end="")
    kill_self()


def close_stdout():
    os.close(1)


def close_stdout_object():
    sys.stdout.close()


def detach_stdout():
    """As everybody does it who wants another encoding."""
    sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")


def wrap_stdout():
    """The other way to another encoding; when it is dropped it closes what it had wrapped."""
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")


def delete_stdout():
    del sys.stdout


def replace_stdout():
    sys.stdout = sys.stderr = io.StringIO()


def print_into_own_file_then_die(path):
    """A file of the task's own, and a word for the pool."""
    with open(path, "w") as file:
        print("printed")
        file.write("data")
    print_by_c("by C\n")
    kill_self()


def leave_printer():
    """A thread that goes on printing behind the task."""

    def flood():
        block = b"x" * 99_999 + b"\n"
        while True:
            os.write(1, block)
            time.sleep(0.001)

    threading.Thread(target=flood, daemon=True).start()
    return os.getpid()


def captured_bytes(pid):
    """How much lies in the files that a worker prints into."""
    return os.stat(f"/proc/{pid}/fd/1").st_size


# -- scratch directories -----------------------------------------------------------------------------------------------


def put_link_in_place(target):
    folder = task_context().scratch_dir
    folder.rmdir()
    os.symlink(target, folder)
    return str(folder)


def put_file_in_place():
    folder = task_context().scratch_dir
    folder.rmdir()
    folder.write_text("file")
    return str(folder)


def make_deep(levels):
    folder = str(task_context().scratch_dir)
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", 0o700, dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    return folder


def ask_in_child():
    """Only a forked child asks for it."""
    child = os.fork()
    if child == 0:
        (task_context().scratch_dir / "from the child").write_text("text")
        os._exit(0)
    os.waitpid(child, 0)
    return os.listdir(task_context().scratch_dir)


def ask_in_threads(count):
    found = []
    barrier = threading.Barrier(count)

    def ask():
        barrier.wait()
        found.append(str(task_context().scratch_dir))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(set(found))


def work_in_it():
    os.chdir(task_context().scratch_dir)
    return os.getcwd()


def where():
    return os.getcwd()


def ask_late(path):
    """A thread of this attempt's asks when it is over."""
    here = task_context()
    folder = str(here.scratch_dir)

    def ask():
        while os.path.exists(folder):
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            note(path, here.scratch_dir)

    threading.Thread(target=ask, daemon=True).start()
    return folder
