"""The server of concurrent streams: `hypercorn http2_app:application`.

In:  /<kind>/<n>, a request of any method, which is counted by path and status.
     plain     nothing
     block     one block of n bytes, given back at once
     sleep     one before a timer and one after it, each of n bytes
     gather    two child tasks, each with a timer and then n bytes
     thread    one in a worker thread
     missing   404, and one of n bytes
     /counts   the counts, as JSON
Out: the length of the blocks, and of the body that came.
Deliberately not here: a framework, so that a request's other bytes are few.
"""

import asyncio
import json

import request_counts

AWAITED_S = 0.002


def block(size_bytes):
    """Allocates one block of that size and gives it back."""
    return len(bytearray(size_bytes))


async def plain(_size_bytes):
    return 0


async def one(size_bytes):
    return block(size_bytes)


async def sleep(size_bytes):
    first = block(size_bytes)
    await asyncio.sleep(AWAITED_S)
    return first + block(size_bytes)


async def child(size_bytes):
    await asyncio.sleep(AWAITED_S)
    return block(size_bytes)


async def gather(size_bytes):
    return sum(await asyncio.gather(child(size_bytes), child(size_bytes)))


async def thread(size_bytes):
    return await asyncio.to_thread(block, size_bytes)


KINDS = {
    "plain": plain,
    "block": one,
    "sleep": sleep,
    "gather": gather,
    "thread": thread,
    "missing": one,
}


async def answer(scope, receive, send):
    if scope["type"] != "http":
        return
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    kind, _, size = scope["path"].strip("/").partition("/")
    if kind == "counts":
        status, body = 200, json.dumps(request_counts.total()).encode()
    elif kind in KINDS:
        allocated = await KINDS[kind](int(size or 0))
        status = 404 if kind == "missing" else 200
        body = b"%d %d\n" % (allocated, length)
    else:
        status, body = 400, b"unknown\n"
    headers = [(b"content-length", b"%d" % len(body))]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


application = request_counts.CountingAsgi(answer)
