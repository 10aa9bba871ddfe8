"""Says one case list as HTTP/2 frames: `h2_say.py HOST:PORT [SVID] < cases.json`. A case is a connection of its own:
`{"headers": [[name, value]...], "data": [text...], "trailers": [[name, value]...], "end": "headers"|"data"|"trailers"}`.
Header blocks are encoded as they are given, whatever they hold. Prints, for each, the status, resets and GOAWAY."""

import json
import sys

from h2_peer import DATA, END_HEADERS, END_STREAM, HEADERS, Peer, frame


def block(pairs) -> bytes:
    # Literals without indexing (RFC 7541 6.2.2), by hand: no encoder looks at what they hold.
    out = b""
    for name, value in pairs:
        name, value = name.encode("latin1"), value.encode("latin1")
        out += b"\x00" + integer(len(name)) + name + integer(len(value)) + value
    return out


def integer(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    out, number = b"\x7f", number - 127
    while number >= 128:
        out, number = out + bytes([number % 128 + 128]), number // 128
    return out + bytes([number])


def say(address: str, svid, case: dict) -> dict:
    peer = Peer(address, svid)
    peer.read(0.1)
    ends = case.get("end", "headers")
    headers = block(case["headers"])
    peer.send(frame(HEADERS, END_HEADERS | (END_STREAM if ends == "headers" else 0), 1, headers))
    data = case.get("data", [])
    for index, text in enumerate(data):
        last = ends == "data" and index == len(data) - 1
        peer.send(frame(DATA, END_STREAM if last else 0, 1, text.encode("latin1")))
    if ends == "trailers":
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(case["trailers"])))
    peer.read(5.0, until=lambda: peer.statuses or peer.resets or peer.goaway is not None)
    peer.read(0.05)
    return peer.told()


def main():
    address, svid = sys.argv[1], (sys.argv[2:] or [None])[0]
    print(json.dumps([say(address, svid, case) for case in json.load(sys.stdin)]))


main()
