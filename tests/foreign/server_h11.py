"""An HTTP/1.1 server on h11: answers each request with what it saw of it, as JSON. Prints its port."""

import json
import socket
import threading

import h11

# Of the answer for /big: more than any buffer on its way.
BIG = 4 * 1024 * 1024


def serve(client: socket.socket) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)

    def events():
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    send(h11.InformationalResponse(status_code=100, headers=[]))
                connection.receive_data(client.recv(65536))
            else:
                yield event

    def send(event) -> None:
        client.sendall(connection.send(event))

    def answer(status: int, told: dict) -> None:
        body = json.dumps(told).encode() + b"\n"
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        send(h11.Response(status_code=status, headers=headers))
        send(h11.Data(data=body))
        send(h11.EndOfMessage())

    try:
        length, request, trailers = 0, None, []
        for event in events():
            if isinstance(event, h11.Request):
                length, request = 0, event
            elif isinstance(event, h11.Data):
                length += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                trailers = event.headers
                text = lambda pairs: [[name.decode("latin1"), value.decode("latin1")] for name, value in pairs]
                answer(200, {"big": "x" * BIG} if request.target == b"/big" else {
                    "saw": f"saw {request.method.decode()} {request.target.decode('latin1')} {length}<",
                    "method": request.method.decode(),
                    "target": request.target.decode("latin1"),
                    "length": length,
                    "headers": text(request.headers.raw_items()),
                    "trailers": text(trailers),
                })
            elif event is h11.PAUSED:
                connection.start_next_cycle()
            else:
                return
            if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                connection.start_next_cycle()
            if connection.our_state is h11.MUST_CLOSE:
                return
    except (h11.RemoteProtocolError, OSError):
        pass
    finally:
        client.close()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
