"""An HTTP/2 server on h2, with prior knowledge: answers each request with what it saw of it. Prints its port."""

import socket
import threading

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded


def serve(client: socket.socket) -> None:
    connection = H2Connection(config=H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    heads, lengths = {}, {}
    client.sendall(connection.data_to_send())
    while data := heard(client):
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceived):
                heads[event.stream_id], lengths[event.stream_id] = dict(event.headers), 0
            elif isinstance(event, DataReceived):
                lengths[event.stream_id] += len(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                head = heads.pop(event.stream_id)
                saw = f"saw {head[':method']} {head[':path']} {lengths.pop(event.stream_id)}<\n".encode()
                connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(saw)))])
                connection.send_data(event.stream_id, saw, end_stream=True)
        client.sendall(connection.data_to_send())


def heard(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except ConnectionError:
        return b""


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
