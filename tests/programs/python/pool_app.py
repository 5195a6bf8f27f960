"""An application for servers that read in one thread and work in others:
`waitress-serve pool_app:application`.

/plain  /big/<n>  /keep/<n>  /asks/<n>: half of the n bytes are allocated before
the server at 127.0.0.1:$BACKEND is asked, and half with its answer. Every block
but those of /keep is given back at once. Deliberately not here: counts, which
the load generator has.
"""

import http.client
import os

import endpoints


def asks(size_bytes):
    endpoints.big(size_bytes // 2)
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["BACKEND"]))
    connection.request("GET", "/body/100")
    answer = connection.getresponse().read()
    connection.close()
    endpoints.big(size_bytes // 2)
    return len(answer)


ENDPOINTS = {"plain": int, "big": endpoints.big, "keep": endpoints.keep, "asks": asks}


def application(environ, start_response):
    name, _, argument = environ["PATH_INFO"][1:].partition("/")
    body = f"{ENDPOINTS[name](int(argument or 0))}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
