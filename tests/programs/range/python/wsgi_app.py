"""The range's WSGI application: Flask, with endpoints that wait in the middle.

/plain and /NAME/BYTES, where NAME says when BYTES are allocated and freed; its
own counts are at /counts. PostgreSQL and Redis are at POSTGRES_DSN and
REDIS_PORT; each process shares a few connections among its threads, open from
the start: opening one is much work, and not what is measured.
Deliberately not here: anything that knows memtrace.
"""

import os
import queue
import time
from contextlib import contextmanager

import psycopg
import redis
from flask import Flask, jsonify

import blocks
import request_counts

app = Flask(__name__)


class Pool:
    """A few connections, open from the start."""

    def __init__(self, size, connect):
        self.idle = queue.Queue()
        for _ in range(size):
            self.idle.put(connect())

    @contextmanager
    def connection(self):
        connection = self.idle.get()
        try:
            yield connection
        finally:
            self.idle.put(connection)


def connect_cache():
    connection = redis.Redis(port=int(os.environ["REDIS_PORT"]))
    connection.ping()
    return connection


database = Pool(8, lambda: psycopg.connect(os.environ["POSTGRES_DSN"], autocommit=True))
cache = Pool(8, connect_cache)



@app.get("/plain")
def plain():
    return "plain\n"


@app.get("/freed/<int:size_bytes>")
def freed(size_bytes):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    second = blocks.block(after)
    return f"{len(first) + len(second)}\n"


@app.get("/at-once/<int:size_bytes>")
def at_once(size_bytes):
    blocks.at_once(size_bytes)
    return f"{size_bytes}\n"


@app.get("/later/<int:size_bytes>")
def later(size_bytes):
    blocks.later(size_bytes)
    return f"{size_bytes}\n"


@app.get("/elsewhere/<int:size_bytes>")
def elsewhere(size_bytes):
    blocks.elsewhere(size_bytes)
    return f"{size_bytes}\n"


@app.get("/kept/<int:size_bytes>")
def kept(size_bytes):
    blocks.kept(size_bytes)
    return f"{size_bytes}\n"


@app.get("/sleep/<int:size_bytes>")
def sleep(size_bytes):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    time.sleep(0.005)
    second = blocks.block(after)
    return f"{len(first) + len(second)}\n"


@app.get("/database/<int:size_bytes>")
def query(size_bytes):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    with database.connection() as connection:
        row = connection.execute("SELECT pg_sleep(0.004), 7::int").fetchone()
    second = blocks.block(after)
    assert row[1] == 7
    return f"{len(first) + len(second)}\n"


@app.get("/cache/<int:size_bytes>")
def cached(size_bytes):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    with cache.connection() as connection:
        connection.incr("requests")
    second = blocks.block(after)
    return f"{len(first) + len(second)}\n"


@app.get("/counts")
def counts():
    return jsonify(request_counts.total())


application = request_counts.CountingWsgi(app)
