"""A small web server, as anybody might write one."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["shoe%d" % number for number in range(2000)]
VISITORS = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/":
            self.answer(200, b"hello\n")
        elif path.startswith("/thumbnail/"):
            image = bytearray(300_000)
            self.answer(200, bytes(image[:1000]))
        elif path == "/search":
            found = [word for word in WORDS if word.endswith("7")]
            self.answer(200, json.dumps(found).encode())
        elif path == "/login":
            VISITORS.append(bytearray(20_000))
            self.answer(200, b"welcome\n")
        else:
            self.answer(404, b"no such page\n")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
