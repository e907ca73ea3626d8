"""Programs in which nothing is done for a while, and which do not hang: what they are told to be doing.

The text of a script, and a word of what is said of it; ``""``: nothing need be said.  Each goes on until it is ended.
"""

from __future__ import annotations

_POOL = """
import concurrent.futures as c, multiprocessing, os, socket, sys, threading, time

{task}

if __name__ == "__main__":
    with c.{executor} as executor:
        print([future.result() for future in [executor.submit(work, n) for n in range({count})]])
"""


def pool(task: str, executor: str = "ProcessPoolExecutor(2)", count: int = 4) -> str:
    """A script whose pool does that task."""
    return _POOL.format(task=task, executor=executor, count=count)


SLEEP = "def work(n):\n    time.sleep(60)"
BUSY_GIL = "def work(n):\n    while True:\n        pass"
# A catastrophic regular expression holds the GIL for years.
C_CODE = "import re\n\ndef work(n):\n    re.match('(a+)+b', 'a' * 60)"
PROMPT = "def work(n):\n    return input('how many? ')"
WAITS_FOR_CHILD = "import subprocess\n\ndef work(n):\n    subprocess.run([sys.executable, '-c', 'while True: pass'])"

DOWNLOAD = """
import concurrent.futures as c, socket, threading, time

def serve(server):
    connection, _ = server.accept()
    while True:
        connection.sendall(b"x")
        time.sleep(0.7)

def work(port):
    connection = socket.create_connection(("127.0.0.1", port))
    received = b""
    while len(received) < 1_000_000:
        received += connection.recv(1000)

if __name__ == "__main__":
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    with c.ProcessPoolExecutor(1) as executor:
        executor.submit(work, server.getsockname()[1]).result()
"""

NO_POOL_SLEEPS = "import time\ntime.sleep(60)"
NO_POOL_PROMPT = "input('how many? ')"
IDLE_SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
server.accept()
"""
ASYNC_SERVER = """
import asyncio

async def main():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    await server.serve_forever()

asyncio.run(main())
"""
SIGNAL_PAUSE = "import signal\nsignal.pause()"
IDLE_POOL = """
import concurrent.futures as c, time
with c.ThreadPoolExecutor(2) as executor:
    print(list(executor.map(abs, range(4))))
    time.sleep(60)
"""
IDLE_PROCESS_POOL = """
import concurrent.futures as c, multiprocessing, time
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool, c.ProcessPoolExecutor(2) as executor:
        print(pool.map(abs, range(4)), list(executor.map(abs, range(4))))
        time.sleep(60)
"""
MANY_SLOW_TASKS = """
import multiprocessing, time

def work(n):
    time.sleep(30)
    return n

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for value in pool.imap_unordered(work, ("x" * 1000 for n in range(5000))):
            pass
"""
SLOW_PRODUCER = """
import multiprocessing, time

def produce():
    yield 1
    time.sleep(60)
    yield 2

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for value in pool.imap(abs, produce()):
            pass
"""
CONDITION = """
import threading
condition = threading.Condition()

def consume():
    with condition:
        condition.wait()

threads = [threading.Thread(target=consume) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
QUEUE_CONSUMERS = """
import multiprocessing

def consume(queue):
    queue.get()

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=consume, args=(queue,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""
LONG_HOLDER = """
import threading, time
lock = threading.Lock()

def hold():
    with lock:
        time.sleep(60)

def wait():
    with lock:
        pass

threads = [threading.Thread(target=hold), threading.Thread(target=wait)]
for thread in threads:
    thread.start()
    time.sleep(0.1)
for thread in threads:
    thread.join()
"""
SLOW_CALLBACK = """
import multiprocessing, time

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for n in range(4):
            pool.apply_async(abs, (n,), callback=lambda value: time.sleep(60))
        pool.close()
        pool.join()
"""

TASK_STARTS_A_PROGRAM = "import subprocess\n\ndef work(n):\n    subprocess.run(['sleep', '60'])"
TASK_ACCEPTS = "def work(n):\n    socket.create_server(('127.0.0.1', 0)).accept()"
TASK_WAITS_WITH_A_LIMIT = "stop = threading.Event()\n\ndef work(n):\n    while not stop.wait(60):\n        pass"
SERVER_IN_A_TASK = """
import asyncio, concurrent.futures

async def main():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    await server.serve_forever()

with concurrent.futures.ThreadPoolExecutor(2) as executor:
    executor.submit(asyncio.run, main()).result()
"""
THREADS_OF_MULTIPROCESSING = """
from multiprocessing.pool import ThreadPool
import time
with ThreadPool(2) as pool:
    pool.map(time.sleep, [60] * 4)
"""
DATABASE_LOCK = """
import concurrent.futures, sqlite3
holder = sqlite3.connect("x.db", isolation_level=None)
holder.execute("create table t(a)")
holder.execute("begin exclusive")

def work(n):
    sqlite3.connect("x.db", timeout=60).execute("insert into t values (1)")

with concurrent.futures.ThreadPoolExecutor(2) as executor:
    list(executor.map(work, range(2)))
"""
LOCK_OF_PROCESSES = """
import multiprocessing, time

def work(lock):
    with lock:
        time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    lock = context.Lock()
    processes = [context.Process(target=work, args=(lock,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""
SLOW_CONSUMER = """
import multiprocessing, time

def work(n):
    return b"x" * 100_000

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for result in pool.imap(work, range(100)):
            time.sleep(60)
"""
WORKERS_THAT_LIVE_FOR_ONE_TASK = pool(SLEEP, "ProcessPoolExecutor(2, max_tasks_per_child=1)")

DOING: dict[str, tuple[str, str]] = {
    "sleep": (pool(SLEEP), "sleeps"),
    "sleep in threads": (pool(SLEEP, "ThreadPoolExecutor(2)"), "sleeps"),
    "busy GIL": (pool(BUSY_GIL), "computes"),
    "busy GIL in threads": (pool(BUSY_GIL, "ThreadPoolExecutor(2)"), "computes"),
    "C code": (pool(C_CODE), "computes"),
    "C code in threads": (pool(C_CODE, "ThreadPoolExecutor(2)", 1), "computes"),
    "prompt in threads": (pool(PROMPT, "ThreadPoolExecutor(1)", 1), "waits for input"),
    "child that computes": (pool(WAITS_FOR_CHILD, count=1), "computes"),
    "download": (DOWNLOAD, "network"),
    "many slow tasks": (MANY_SLOW_TASKS, "sleeps"),
    "slow callback": (SLOW_CALLBACK, ""),
    "slow producer": (SLOW_PRODUCER, ""),
    "task that starts a program": (pool(TASK_STARTS_A_PROGRAM, "ThreadPoolExecutor(2)"), "waits for a process"),
    "task that accepts": (pool(TASK_ACCEPTS), "network"),
    "task that waits with a limit": (pool(TASK_WAITS_WITH_A_LIMIT, "ThreadPoolExecutor(2)"), "at most 60 s"),
    "server in a task": (SERVER_IN_A_TASK, "network"),
    "sleep in threads of multiprocessing": (THREADS_OF_MULTIPROCESSING, "sleeps"),
    "lock of a database": (DATABASE_LOCK, "sleeps"),
    "workers that live for one task": (WORKERS_THAT_LIVE_FOR_ONE_TASK, "sleeps"),
    "lock of processes": (LOCK_OF_PROCESSES, ""),
    "slow consumer": (SLOW_CONSUMER, ""),
    "no pool, sleep": (NO_POOL_SLEEPS, ""),
    "no pool, prompt": (NO_POOL_PROMPT, ""),
    "idle server": (IDLE_SERVER, ""),
    "idle asyncio server": (ASYNC_SERVER, ""),
    "pause": (SIGNAL_PAUSE, ""),
    "idle pool": (IDLE_POOL, ""),
    "idle process pools": (IDLE_PROCESS_POOL, ""),
    "condition": (CONDITION, ""),
    "consumers of an empty queue": (QUEUE_CONSUMERS, ""),
    "long holder of a lock": (LONG_HOLDER, ""),
}
