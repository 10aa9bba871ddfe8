"""Requests from a namespace, by hand: the bench's own questions, never a measurement."""

import dataclasses

from . import stage


@dataclasses.dataclass
class Answer:
    status: int
    body: bytes


def ask(namespace, address, port, timeout=5):
    """GET over a connection of its own."""
    with stage.connect(namespace, address, port, timeout) as connection:
        return ask_over(connection, f"{address}:{port}")


def ask_over(connection, host):
    """GET as the last request of a connection."""
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    text = b""
    while chunk := connection.recv(65536):
        text += chunk
    head, _, body = text.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError(f"no answer of HTTP: {text[:80]!r}")
    return Answer(int(words[1]), body)


def hold(namespace, address, port):
    """A connection that was answered once, and stays."""
    connection = stage.connect(namespace, address, port)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
    text = b""
    while b"\r\n\r\n" not in text or len(text.partition(b"\r\n\r\n")[2]) < 1024:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError(f"the connection ended after {text[:80]!r}")
        text += chunk
    return connection
