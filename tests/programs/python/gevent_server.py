"""An HTTP server of gevent's own: a greenlet for each connection.

In:  --port, --backend (the port of another such server).
     /<kind>/<n> allocates one block of n bytes before and one after it waited:
     sleep     a timer
     gather    two child greenlets, each with a timer and half of the second block
     backend   an answer on one of a few connections that all requests share
     plain     nothing
Out: the length of both blocks.
Deliberately not here: gevent's thread pool, a framework, and anything that knows memtrace.
"""

import argparse

import gevent
from gevent import pywsgi, queue, socket

BACKEND_CONNECTIONS = 4
WAITED_S = 0.002


def block(size_bytes):
    """Allocates one block of that size and gives it back."""
    return len(bytearray(size_bytes))


class Pool:
    """Connections to the backend; each is one request's at a time."""

    def __init__(self, port):
        self.free = queue.Queue()
        for _ in range(BACKEND_CONNECTIONS):
            self.free.put(socket.create_connection(("127.0.0.1", port)))

    def ask(self):
        connection = self.free.get()
        connection.sendall(b"GET /sleep/0 HTTP/1.1\r\nHost: backend\r\n\r\n")
        answer = b""
        while not answer.endswith(b"0\n"):
            more = connection.recv(4096)
            if not more:
                raise ConnectionError("the backend closed the connection")
            answer += more
        self.free.put(connection)


class Application:
    def __init__(self, pool):
        self.pool = pool
        self.kinds = {
            "sleep": self.sleep,
            "gather": self.gather,
            "backend": self.backend,
            "plain": lambda _size_bytes: 0,
        }

    def __call__(self, environment, start_response):
        _, kind, size = environment["PATH_INFO"].split("/")
        body = b"%d\n" % self.kinds[kind](int(size))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def sleep(self, size_bytes):
        first = block(size_bytes)
        gevent.sleep(WAITED_S)
        return first + block(size_bytes)

    def gather(self, size_bytes):
        def child(part_bytes):
            gevent.sleep(WAITED_S)
            return block(part_bytes)

        first = block(size_bytes)
        half = size_bytes // 2
        children = [gevent.spawn(child, half), gevent.spawn(child, size_bytes - half)]
        gevent.joinall(children, raise_error=True)
        return first + sum(child.value for child in children)

    def backend(self, size_bytes):
        first = block(size_bytes)
        self.pool.ask()
        return first + block(size_bytes)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", type=int)
    options = parser.parse_args()
    pool = Pool(options.backend) if options.backend else None
    address = ("127.0.0.1", options.port)
    pywsgi.WSGIServer(address, Application(pool), log=None).serve_forever()


if __name__ == "__main__":
    main()
