"""The server of long connections: `uvicorn stream_app:app`.

/echo: a WebSocket that answers each message.  /feed/<n>: one that sends n
messages of its own.  /events/<n>: n server-sent events.
Deliberately not here: anything that knows memtrace.
"""

import asyncio

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect


async def echo(websocket):
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            await asyncio.sleep(0)
            await websocket.send_text(text)
    except WebSocketDisconnect:
        pass


async def feed(websocket):
    await websocket.accept()
    for number in range(websocket.path_params["count"]):
        await asyncio.sleep(0.002)
        await websocket.send_text(f"news {number}")
    await websocket.close()


async def events(request):
    async def stream():
        for number in range(request.path_params["count"]):
            await asyncio.sleep(0.002)
            yield f"event: news\ndata: {'x' * (100 * number)}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


app = Starlette(
    routes=[
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/feed/{count:int}", feed),
        Route("/events/{count:int}", events),
    ]
)
