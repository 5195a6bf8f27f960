"""One HTTP/2 connection that is open before something is measured:
`http2_client.py PORT EACH PATH...`.

In:  a line on standard input, after which each path is asked EACH times, one
     request after the other. Each was asked once before, so that the header
     table already has its fields.
Out: "ready" before that line is read; then {"<path>": {"<status>": n}}.
"""

import collections
import json
import socket
import sys

import h2.connection
import h2.events


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.http2 = h2.connection.H2Connection()
        self.http2.initiate_connection()

    def ask(self, path):
        """The status of the answer."""
        stream = self.http2.get_next_available_stream_id()
        headers = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", path),
        ]
        self.http2.send_headers(stream, headers, end_stream=True)
        status = None
        while True:
            self.socket.sendall(self.http2.data_to_send())
            for event in self.http2.receive_data(self.socket.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"].decode()
                elif isinstance(event, h2.events.StreamEnded):
                    return status


def main():
    port, each, *paths = sys.argv[1:]
    client = Client(int(port))
    for path in paths:
        client.ask(path)
    print("ready", flush=True)
    sys.stdin.readline()
    counts = collections.defaultdict(collections.Counter)
    for _ in range(int(each)):
        for path in paths:
            counts[path][client.ask(path)] += 1
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
