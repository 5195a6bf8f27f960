"""The standard library's server: `http_server.py PORT`.

A ThreadingHTTPServer that speaks HTTP/1.1 with keep-alive: one thread for each
connection. /plain  /big/<n>  /keep/<n>  /status/<code>  /counts; its own counts
come from request_counts. Deliberately not here: anything that knows memtrace.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import endpoints
import request_counts


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        name, _, argument = self.path.lstrip("/").partition("/")
        status, body = 200, "plain\n"
        if name == "big":
            body = f"{endpoints.big(int(argument))}\n"
        elif name == "keep":
            body = f"{endpoints.keep(int(argument))}\n"
        elif name == "status":
            status, body = int(argument), f"{argument}\n"
        elif name == "counts":
            body = json.dumps(request_counts.total())
        elif name != "plain":
            status, body = 404, "not here\n"
        request_counts.record(self.path, str(status))
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


request_counts.open_file()
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
