"""The Flask test server: `gunicorn flask_app:application`.

/plain  /big/<n>  /keep/<n>  /status/<code>  /counts; its own counts come from
request_counts. Deliberately not here: anything that knows memtrace.
"""

from flask import Flask, jsonify

import endpoints
import request_counts

app = Flask(__name__)


@app.get("/plain")
def plain():
    return "plain\n"


@app.get("/big/<int:size_bytes>")
def big(size_bytes):
    return f"{endpoints.big(size_bytes)}\n"


@app.get("/keep/<int:size_bytes>")
def keep(size_bytes):
    return f"{endpoints.keep(size_bytes)}\n"


@app.get("/status/<int:code>")
def status(code):
    return f"{code}\n", code


@app.get("/counts")
def counts():
    return jsonify(request_counts.total())


application = request_counts.CountingWsgi(app)
