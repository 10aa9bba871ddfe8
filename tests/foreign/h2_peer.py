"""A connection that speaks HTTP/2 by raw frames: to a sidecar as its application (h2c) or, with a certificate, as its peer
(`douane/1`). hpack makes header blocks, hyperframe nothing: what is sent is written here byte by byte."""

import socket
import ssl
import struct
import time

import hpack
from hyperframe.frame import Frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 1, 4, 8, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Peer:
    def __init__(self, address: str, svid: str | None = None, preface: bool = True, patience: float = 15.0):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if svid:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(svid)
            context.set_alpn_protocols(["douane/1"])
            self.socket = context.wrap_socket(self.socket)
        self.tls = svid is not None
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.buffer = b""
        self.goaway = None
        # The last stream of each GOAWAY, and pings that are answered later.
        self.goaways = []
        self.held_pings = None
        self.closed = False
        self.resets = {}
        self.statuses = {}
        self.bodies = {}
        self.pongs = 0
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data: bytes) -> bool:
        """False once the other side is gone or takes nothing more."""
        if self.closed:
            return False
        try:
            self.socket.sendall(data)
            return True
        except (OSError, ssl.SSLError):
            self.closed = True
            return False

    def head(self, path: str = "/a", method: str = "GET", more=()) -> list:
        dialect = [("x-douane-http", "1.1")] if self.tls else []
        return [(":method", method), (":scheme", "http"), (":authority", "orders"), (":path", path), *dialect, *more]

    def request(self, stream: int, headers=None, flags: int = END_STREAM | END_HEADERS) -> bytes:
        return frame(HEADERS, flags, stream, self.encoder.encode(headers or self.head()))

    def read(self, seconds: float = 0.0, until=lambda: False) -> None:
        """Takes what comes for that long, or until it ends."""
        end = time.monotonic() + seconds
        while not self.closed and not until():
            left = end - time.monotonic()
            self.socket.settimeout(max(left, 0.001))
            try:
                data = self.socket.recv(65536)
            except (TimeoutError, ssl.SSLWantReadError):
                if left <= 0:
                    break
                continue
            except (OSError, ssl.SSLError):
                self.closed = True
                break
            if not data:
                self.closed = True
            self.buffer += data
            self.take()
            if left <= 0:
                break
        self.socket.settimeout(15.0)

    def take(self) -> None:
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                return
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF
            payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
            Frame.parse_frame_header(memoryview(struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream)))
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK, 0))
            elif kind == PING and flags & ACK:
                self.pongs += 1
            elif kind == PING and self.held_pings is not None:
                self.held_pings.append(payload)
            elif kind == PING:
                self.send(frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                self.goaways.append(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)
                self.goaway = int.from_bytes(payload[4:8], "big")
            elif kind == RST:
                self.resets[stream] = int.from_bytes(payload[:4], "big")
            elif kind == HEADERS:
                headers = dict(self.decoder.decode(payload))
                if ":status" in headers:
                    self.statuses[stream] = int(headers[":status"])
            elif kind == DATA:
                self.bodies[stream] = self.bodies.get(stream, b"") + payload

    def told(self) -> dict:
        codes = list(self.resets.values())
        return {
            "goaway": self.goaway,
            "closed": self.closed,
            "resets": {str(code): codes.count(code) for code in set(codes)},
            "statuses": list(self.statuses.values()),
            "bodies": [body.decode("latin1") for body in self.bodies.values()],
            "pongs": self.pongs,
        }
