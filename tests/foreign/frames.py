"""Listens on every link of the network it is started in. At the end of its input it tells which of the words it was given
travelled in clear, how many frames there were, and how many the kernel could not hand over."""

import json
import select
import socket
import struct
import sys

ALL_PROTOCOLS, OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
SOL_PACKET, PACKET_STATISTICS = 263, 6

words = [word.encode() for word in sys.argv[1:]]
listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
print("listens", flush=True)

frames, seen = 0, set()
while True:
    ready, _, _ = select.select([listening, sys.stdin], [], [])
    if listening in ready:
        frame, link = listening.recvfrom(128 * 1024)
        # A forwarded frame is seen twice, coming from one pod and leaving towards the other: the second counts.
        if link[2] == OUTGOING:
            frames += 1
            seen |= {word.decode() for word in words if word in frame}
    elif not sys.stdin.buffer.read1():
        break

_, missed = struct.unpack("II", listening.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
print(json.dumps({"frames": frames, "missed": missed, "seen": sorted(seen)}))
