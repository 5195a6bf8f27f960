"""The FastAPI test server: `uvicorn fastapi_app:application`.

/plain  /big/<n>  /keep/<n>  /status/<code>  /counts; its own counts come from
request_counts. Every endpoint is async, so each runs on the event loop.
Deliberately not here: anything that knows memtrace.
"""

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

import endpoints
import request_counts

app = FastAPI()


@app.get("/plain", response_class=PlainTextResponse)
async def plain():
    return "plain\n"


@app.get("/big/{size_bytes}", response_class=PlainTextResponse)
async def big(size_bytes: int):
    return f"{endpoints.big(size_bytes)}\n"


@app.get("/keep/{size_bytes}", response_class=PlainTextResponse)
async def keep(size_bytes: int):
    return f"{endpoints.keep(size_bytes)}\n"


@app.get("/status/{code}")
async def status(code: int):
    return PlainTextResponse(f"{code}\n", status_code=code)


@app.get("/counts")
async def counts():
    return JSONResponse(request_counts.total())


application = request_counts.CountingAsgi(app)
