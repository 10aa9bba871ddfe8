"""Runs inside a pod as any application: asks all the time, checks each answer, and tells each failure when it happens.

    clients.py http URL RATE           keep-alive connections that share a rate
    clients.py echo HOST:PORT EVERY    one connection for ever, every byte of it checked; opened again when it ends
    clients.py grpc URL                server streams, one after the other, each checked to be whole and in order

Each line of its output is JSON: {"at", "failed"} for a failure, {"done"} for so many successes since the last line.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

# Each answer comes within this, or it failed.
PATIENCE = 15
CONNECTIONS = 8
# Of a stream: so many messages, so many milliseconds apart.
MESSAGES, APART = 20, 100

told = threading.Lock()
done = 0


def succeeded(count=1):
    global done
    with told:
        done += count


def failed(began, why):
    with told:
        print(json.dumps({"at": began, "until": time.time(), "failed": str(why)[:300]}), flush=True)


def http_load(url, rate):
    parts = urllib.parse.urlsplit(url)
    for number in range(CONNECTIONS):
        threading.Thread(target=_ask_for_ever, args=(parts, CONNECTIONS / float(rate), number), daemon=True).start()


def _ask_for_ever(parts, every, number):
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=PATIENCE)
    turn = time.monotonic() + every * number / CONNECTIONS
    while True:
        turn += every
        time.sleep(max(0.0, turn - time.monotonic()))
        began = time.time()
        try:
            connection.request("GET", parts.path or "/")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                succeeded()
            else:
                failed(began, f"{answer.status} {body[:80]!r}")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            failed(began, f"{type(error).__name__}: {error}")


def echo_load(address, every):
    host, port = address.rsplit(":", 1)
    while True:
        began = time.time()
        try:
            with socket.create_connection((host, int(port)), PATIENCE) as connection:
                while True:
                    began = time.time()
                    sent = os.urandom(4096)
                    connection.sendall(sent)
                    heard = b""
                    while len(heard) < len(sent):
                        chunk = connection.recv(65536)
                        if not chunk:
                            raise ConnectionError("the stream ended")
                        heard += chunk
                    if heard != sent:
                        raise ConnectionError("the stream came back changed")
                    succeeded()
                    time.sleep(float(every))
        except OSError as error:
            failed(began, f"{type(error).__name__}: {error}")
            time.sleep(0.2)


def grpc_load(url):
    while True:
        began = time.time()
        ran = subprocess.run(
            ["shop", "grpc", "watch", url, "lamp", "--updates", str(MESSAGES), "--interval", str(APART)],
            capture_output=True, text=True, timeout=4 * PATIENCE)
        revisions = [json.loads(line)["revision"] for line in ran.stdout.splitlines()]
        whole = len(revisions) == MESSAGES
        if ran.returncode == 0 and whole and revisions == list(range(revisions[0], revisions[0] + MESSAGES)):
            succeeded(MESSAGES)
        else:
            failed(began, f"{len(revisions)} of {MESSAGES} messages: {ran.stderr.strip()}")
            time.sleep(0.2)


def echo_server(port):
    """Not a client: what `echo` talks to."""
    with socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_send_back, args=(connection,), daemon=True).start()


def _send_back(connection):
    with connection:
        try:
            while chunk := connection.recv(65536):
                connection.sendall(chunk)
        except OSError:
            pass


ROLES = {"http": http_load, "echo": echo_load, "grpc": grpc_load, "echo-server": echo_server}


def main():
    global done
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: os._exit(0))
    role, *words = sys.argv[1:]
    threading.Thread(target=ROLES[role], args=words, daemon=True).start()
    while True:
        time.sleep(1)
        with told:
            print(json.dumps({"done": done}), flush=True)
            done = 0


if __name__ == "__main__":
    main()
