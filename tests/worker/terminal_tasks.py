"""What tasks do with process groups, signals and programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

UNTIL_INTERRUPTED = """
import time
try:
    print("up", flush=True)
    while True:
        time.sleep(0.1)
except KeyboardInterrupt:
    print("bye")
"""


def end_my_group(number=signal.SIGTERM):
    os.killpg(0, number)


def end_my_group_from_a_shell():
    subprocess.run(["sh", "-c", "kill 0; sleep 1000"], check=False)


def become_session_leader():
    os.setsid()
    return os.getsid(0) == os.getpid()


def groups():
    return os.getpid(), os.getpgrp()


def interrupt_a_program():
    process = subprocess.Popen([sys.executable, "-c", UNTIL_INTERRUPTED], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    return process.communicate()[0]


def interrupt_myself():
    os.kill(os.getpid(), signal.SIGINT)
    return "went on"


def read_from_the_terminal():
    with open("/dev/tty") as terminal:
        return terminal.readline()
