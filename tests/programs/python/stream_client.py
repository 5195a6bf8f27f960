"""Talks to stream_app on the port given and prints what it counted, as JSON.

Deliberately not here: anything that knows memtrace.
"""

import asyncio
import json
import sys
import urllib.request

import websockets

PORT = sys.argv[1]
CLIENTS, MESSAGES, NEWS, EVENTS = 8, 40, 15, 20


async def echo():
    answered = 0
    async with websockets.connect(f"ws://127.0.0.1:{PORT}/echo") as websocket:
        for number in range(MESSAGES):
            text = "m" * (number * number)
            await websocket.send(text)
            answered += await websocket.recv() == text
    return answered


async def feed():
    received = 0
    async with websockets.connect(f"ws://127.0.0.1:{PORT}/feed/{NEWS}") as websocket:
        async for _ in websocket:
            received += 1
    return received


def events():
    url = f"http://127.0.0.1:{PORT}/events/{EVENTS}"
    with urllib.request.urlopen(url) as response:
        return sum(line.startswith(b"data:") for line in response)


async def main():
    answered = await asyncio.gather(*[echo() for _ in range(CLIENTS)])
    received = await asyncio.gather(*[feed() for _ in range(CLIENTS)])
    seen = await asyncio.gather(
        *[asyncio.to_thread(events) for _ in range(CLIENTS)]
    )
    counts = {"clients": CLIENTS, "answered": sum(answered)}
    print(json.dumps(counts | {"received": sum(received), "events": sum(seen)}))


asyncio.run(main())
