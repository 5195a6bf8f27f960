"""Requests by path and status, counted by the server itself.

In:  `record(path, status)` in every process of a server, and COUNTS_DIR, a
     directory that its processes share.
Out: `total()`: {"/path": {"200": n}} over all of its processes.

Each process keeps its numbers in a mapped file of its own, so that pre-forked
workers need no lock between them and a request costs no allocation once its
path was seen. Deliberately not here: anything about memory.
"""

import mmap
import os
import struct
import threading

SLOTS_MAX = 1024
KEY_BYTES = 120
SLOT = struct.Struct(f"<Q{KEY_BYTES}s")

_lock = threading.Lock()
_pid = None
_map = None
_slots = {}


def _open_file():
    """Called with the lock held, the first time and again after a fork."""
    global _pid, _map
    _pid = os.getpid()
    _slots.clear()
    path = os.path.join(os.environ["COUNTS_DIR"], f"{_pid}.counts")
    with open(path, "w+b") as file:
        file.truncate(SLOTS_MAX * SLOT.size)
        _map = mmap.mmap(file.fileno(), SLOTS_MAX * SLOT.size)


def open_file():
    """Creates this process's file: it is there once the process can answer."""
    with _lock:
        if _pid != os.getpid():
            _open_file()


def record(path, status):
    key = f"{status} {path}".encode()[:KEY_BYTES]
    with _lock:
        if _pid != os.getpid():
            _open_file()
        slot = _slots.get(key)
        if slot is None:
            slot = len(_slots)
            if slot == SLOTS_MAX:
                raise RuntimeError("more distinct paths than request_counts has slots")
            _slots[key] = slot
            SLOT.pack_into(_map, slot * SLOT.size, 0, key)
        count, _ = SLOT.unpack_from(_map, slot * SLOT.size)
        struct.pack_into("<Q", _map, slot * SLOT.size, count + 1)


def total():
    counts = {}
    directory = os.environ["COUNTS_DIR"]
    for name in os.listdir(directory):
        if not name.endswith(".counts"):
            continue
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        for count, key in SLOT.iter_unpack(data):
            if count == 0:
                continue
            status, path = key.rstrip(b"\0").decode().split(" ", 1)
            by_status = counts.setdefault(path, {})
            by_status[status] = by_status.get(status, 0) + count
    return counts


class CountingWsgi:
    """A WSGI application that counts what another one answers."""

    def __init__(self, application):
        self.application = application
        open_file()

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO", "")

        def counting_start_response(status, headers, exc_info=None):
            record(path, status[:3])
            return start_response(status, headers, exc_info)

        return self.application(environ, counting_start_response)


class CountingAsgi:
    """An ASGI application that counts what another one answers."""

    def __init__(self, application):
        self.application = application
        open_file()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.application(scope, receive, send)

        async def counting_send(message):
            if message["type"] == "http.response.start":
                record(scope["path"], str(message["status"]))
            await send(message)

        await self.application(scope, receive, counting_send)
