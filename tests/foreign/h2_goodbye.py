"""A client of HTTP/2 whose server ends while a request is under way: `h2_goodbye.py HOST:PORT [SVID]`. When it is told to
open no more streams it has just opened one; then it ends its request, and waits for the end. Prints what became of both,
and the last stream that each GOAWAY named."""

import json
import sys

from h2_peer import ACK, DATA, END_HEADERS, END_STREAM, PING, Peer, frame

peer = Peer(sys.argv[1], (sys.argv[2:] or [None])[0], patience=60.0)
peer.send(peer.request(1, peer.head("/slow", "POST"), END_HEADERS) + frame(DATA, 0, 1, b"first half, "))
# The first GOAWAY and the ping behind it may come in one read.
peer.held_pings = []

peer.read(30.0, until=lambda: peer.goaways and peer.held_pings)
told_first = list(peer.goaways)
peer.send(peer.request(3, peer.head("/on-its-way")))
for payload in peer.held_pings:
    peer.send(frame(PING, ACK, 0, payload))
peer.held_pings = None
peer.read(30.0, until=lambda: len(peer.goaways) > 1)
peer.send(frame(DATA, END_STREAM, 1, b"second half"))
peer.read(30.0, until=lambda: peer.closed)
print(json.dumps({**peer.told(), "first": told_first, "goaways": peer.goaways}))
