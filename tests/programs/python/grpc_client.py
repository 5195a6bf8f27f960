"""Calls of `grpc_server.py`: `grpc_client.py PORT CONCURRENCY EACH SIZE`.

In:  EACH calls of each method, CONCURRENCY at once on one connection.
Out: {"<method>": {"<code>": n}} as JSON: what the client's library says.
"""

import collections
import json
import sys
from concurrent import futures

import grpc

METHODS = ("Block", "Fail", "Stream")


def call(channel, method, size):
    """The code of one call's status."""
    name = f"/test.Bytes/{method}"
    try:
        if method == "Stream":
            for _ in channel.unary_stream(name)(size):
                pass
        else:
            channel.unary_unary(name)(size)
    except grpc.RpcError as error:
        return error.code().value[0]
    return 0


def main():
    port, concurrency, each, size = sys.argv[1:]
    counts = collections.defaultdict(collections.Counter)
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        futures.ThreadPoolExecutor(int(concurrency)) as pool,
    ):
        calls = [
            (method, pool.submit(call, channel, method, size.encode()))
            for _ in range(int(each))
            for method in METHODS
        ]
        for method, future in calls:
            counts[method][future.result()] += 1
    json.dump(counts, sys.stdout)


if __name__ == "__main__":
    main()
