"""What a server says of each request: `saw METHOD TARGET LENGTH<`. As an ASGI application, a WSGI application, and on aiohttp
(`saw.py PORT`)."""

import sys


def told(method: str, target: str, length: int) -> bytes:
    return f"saw {method} {target} {length}<\n".encode()


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    length = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return
        length += len(event.get("body", b""))
        if not event.get("more_body"):
            break
    query = scope["query_string"].decode("latin1")
    target = scope.get("raw_path", scope["path"].encode()).decode("latin1") + ("?" + query if query else "")
    body = told(scope["method"], target, length)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    length = 0
    while piece := environ["wsgi.input"].read(65536):
        length += len(piece)
    query = environ.get("QUERY_STRING", "")
    target = environ.get("RAW_URI") or environ["PATH_INFO"] + ("?" + query if query else "")
    body = told(environ["REQUEST_METHOD"], target, length)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def aiohttp_server(host: str, port: int) -> None:
    from aiohttp import web

    async def answer(request):
        length = len(await request.read())
        return web.Response(body=told(request.method, request.raw_path, length))

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", answer)
    web.run_app(app, host=host, port=port, print=None)


if __name__ == "__main__":
    aiohttp_server(sys.argv[1], int(sys.argv[2]))
