"""The uWSGI test application: a body of a size that its path tells."""


def application(environ, start_response):
    parts = environ["REQUEST_URI"].split("?")[0].split("/")
    missing = parts[2] == "missing"
    body = b"x" * int(parts[3] if len(parts) > 3 else 10)
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(
        "404 Not Found" if missing else "200 OK",
        [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
    )
    return [body]
