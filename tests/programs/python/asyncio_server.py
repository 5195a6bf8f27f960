"""An HTTP server of asyncio alone: every CPython since 3.8 runs it, its text
given with `-c` where no file system is shared.

In:  --port, --style, --loop, --backend (the port of another such server).
     /<kind>/<n> allocates one block of n bytes before and one after it awaited:
     sleep     a timer
     gather    two child tasks, each with a timer and half of the second block
     thread    asyncio.to_thread, which allocates the second block
     backend   an answer on one of a few connections that all requests share
     plain     nothing
Out: the length of both blocks.
Deliberately not here: a framework, and anything that knows memtrace.
"""

import argparse
import asyncio
import contextvars
import functools

BACKEND_CONNECTIONS = 4
AWAITED_S = 0.002


def block(size_bytes):
    """Allocates one block of that size and gives it back."""
    return len(bytearray(size_bytes))


async def sleep(size_bytes):
    first = block(size_bytes)
    await asyncio.sleep(AWAITED_S)
    return first + block(size_bytes)


async def child(size_bytes):
    await asyncio.sleep(AWAITED_S)
    return block(size_bytes)


async def gather(size_bytes):
    first = block(size_bytes)
    halves = await asyncio.gather(
        child(size_bytes // 2), child(size_bytes - size_bytes // 2)
    )
    return first + sum(halves)


async def to_thread(function, *arguments):
    """asyncio.to_thread, which 3.8 lacks."""
    call = functools.partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(None, call)


async def thread(size_bytes):
    first = block(size_bytes)
    return first + await getattr(asyncio, "to_thread", to_thread)(block, size_bytes)


async def plain(_size_bytes):
    return 0


class Pool:
    """A few connections to the backend, each for one request at a time."""

    def __init__(self, port):
        self.port = port
        self.free = None

    async def open(self):
        self.free = asyncio.Queue()
        for _ in range(BACKEND_CONNECTIONS):
            await self.free.put(await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self):
        """The backend's answer to a request that makes it wait."""
        reader, writer = await self.free.get()
        try:
            writer.write(b"GET /sleep/10 HTTP/1.1\r\nHost: backend\r\n\r\n")
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            return await reader.readexactly(int(length))
        finally:
            self.free.put_nowait((reader, writer))


class Application:
    def __init__(self, pool):
        self.pool = pool
        self.kinds = {
            "sleep": sleep,
            "gather": gather,
            "thread": thread,
            "backend": self.backend,
            "plain": plain,
        }

    async def backend(self, size_bytes):
        first = block(size_bytes)
        await self.pool.ask()
        return first + block(size_bytes)

    async def answer(self, head):
        """The response to a request's head."""
        target = head.split(b" ", 2)[1].decode()
        kind, _, size = target.strip("/").partition("/")
        if kind not in self.kinds:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        body = b"%d\n" % await self.kinds[kind](int(size or 0))
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def connection(self, reader, writer):
        """The streams style: one task for a connection and all its requests."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self.answer(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Connection(asyncio.Protocol):
    """The protocol style: a task for each request. No pipelining."""

    def __init__(self, application):
        self.application = application
        self.received = b""
        # The loop itself does not keep tasks alive.
        self.task = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if end:
            self.received = rest
            self.task = asyncio.get_running_loop().create_task(self.respond(head))

    async def respond(self, head):
        response = await self.application.answer(head)
        if not self.transport.is_closing():
            self.transport.write(response)


async def serve(options):
    pool = None
    if options.backend:
        pool = Pool(options.backend)
        await pool.open()
    application = Application(pool)
    if options.style == "streams":
        server = await asyncio.start_server(
            application.connection, "127.0.0.1", options.port, backlog=512
        )
    else:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(application), "127.0.0.1", options.port, backlog=512
        )
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--style", choices=["streams", "protocol"], default="protocol")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--backend", type=int)
    options = parser.parse_args()
    if options.loop == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
