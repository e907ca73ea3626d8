"""What the tests of notes run in workers."""

from __future__ import annotations

import os
import signal
import threading
import time

from resilient_exec import task_context


def note_and_die(text):
    task_context().note("something before")
    task_context().note(text)
    os.kill(os.getpid(), signal.SIGKILL)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def note_and_raise(text):
    task_context().note(text)
    raise ValueError(text)


def note_and_hang(text):
    task_context().note(text)
    time.sleep(3600)


def note_and_return(text):
    task_context().note(text)
    return text


def note_from_the_past():
    """A thread that outlives its attempt notes under the next one."""
    context = task_context()
    threading.Thread(target=_note_late, args=(context,), daemon=True).start()


def _note_late(context):
    while task_context() is context or task_context().key is None:
        time.sleep(0.001)
    context.note("from the past")
    _late.set()


_late = threading.Event()


def die_after_the_late_note():
    _late.wait(30)
    os.kill(os.getpid(), signal.SIGKILL)


def own_key():
    """The key of this task, as it sees it."""
    return task_context().key
