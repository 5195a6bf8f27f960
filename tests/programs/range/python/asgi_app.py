"""The range's ASGI application: FastAPI, with endpoints that await in the middle.

/plain and /NAME/BYTES, where NAME says when BYTES are allocated and freed; its
own counts are at /counts. PostgreSQL and Redis are at POSTGRES_DSN and
REDIS_PORT: asyncpg and redis.asyncio with pools shared by all requests, and
psycopg with a connection for each thread in the endpoint that is not async.
Deliberately not here: anything that knows memtrace.
"""

import asyncio
import os
import threading
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import redis.asyncio
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

import blocks
import request_counts

local = threading.local()


@asynccontextmanager
async def lifespan(app):
    app.state.database = await asyncpg.create_pool(
        os.environ["POSTGRES_DSN"], min_size=16, max_size=16
    )
    app.state.cache = redis.asyncio.Redis(port=int(os.environ["REDIS_PORT"]))
    yield
    await app.state.database.close()
    await app.state.cache.aclose()


app = FastAPI(lifespan=lifespan, default_response_class=PlainTextResponse)


@app.get("/plain")
async def plain():
    return "plain\n"


@app.get("/freed/{size_bytes}")
async def freed(size_bytes: int):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    second = blocks.block(after)
    return f"{len(first) + len(second)}\n"


@app.get("/at-once/{size_bytes}")
async def at_once(size_bytes: int):
    blocks.at_once(size_bytes)
    return f"{size_bytes}\n"


@app.get("/later/{size_bytes}")
async def later(size_bytes: int):
    blocks.later(size_bytes)
    return f"{size_bytes}\n"


@app.get("/elsewhere/{size_bytes}")
async def elsewhere(size_bytes: int):
    blocks.elsewhere(size_bytes)
    return f"{size_bytes}\n"


@app.get("/kept/{size_bytes}")
async def kept(size_bytes: int):
    blocks.kept(size_bytes)
    return f"{size_bytes}\n"


@app.get("/sleep/{size_bytes}")
async def sleep(size_bytes: int):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    await asyncio.sleep(0.005)
    second = blocks.block(after)
    return f"{len(first) + len(second)}\n"


@app.get("/database/{size_bytes}")
async def query(size_bytes: int):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    row = await app.state.database.fetchrow("SELECT pg_sleep(0.004), 7::int AS seven")
    second = blocks.block(after)
    assert row["seven"] == 7
    return f"{len(first) + len(second)}\n"


@app.get("/cache/{size_bytes}")
async def cached(size_bytes: int):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    await app.state.cache.incr("requests")
    second = blocks.block(after)
    return f"{len(first) + len(second)}\n"


@app.get("/gather/{size_bytes}")
async def gather(size_bytes: int):
    async def child(size_bytes, seconds):
        before, after = blocks.parts(size_bytes, 1, 3)
        first = blocks.block(before)
        await asyncio.sleep(seconds)
        second = blocks.block(after)
        return len(first) + len(second)

    sizes = blocks.parts(size_bytes, 1, 2, 3, 4)
    lengths = await asyncio.gather(
        *(child(size, 0.002 * (4 - number)) for number, size in enumerate(sizes))
    )
    return f"{sum(lengths)}\n"


@app.get("/to-thread/{size_bytes}")
async def to_thread(size_bytes: int):
    before, within, after = blocks.parts(size_bytes, 1, 4, 3)
    first = blocks.block(before)
    length = await asyncio.to_thread(lambda: len(blocks.block(within)))
    second = blocks.block(after)
    return f"{len(first) + length + len(second)}\n"


@app.get("/sync/{size_bytes}")
def sync(size_bytes: int):
    before, after = blocks.parts(size_bytes, 1, 3)
    first = blocks.block(before)
    if not hasattr(local, "database"):
        local.database = psycopg.connect(os.environ["POSTGRES_DSN"], autocommit=True)
    row = local.database.execute("SELECT pg_sleep(0.002), 7::int").fetchone()
    second = blocks.block(after)
    assert row[1] == 7
    return f"{len(first) + len(second)}\n"


@app.get("/counts")
async def counts():
    return JSONResponse(request_counts.total())


application = request_counts.CountingAsgi(app)
