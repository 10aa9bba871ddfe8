"""The load generators: how each is called, and what it printed. They run in the client pod, on the client's core."""

import json
import pathlib
import re
import subprocess
import time

from . import stage
from .applications import BODY

# A generator that has not ended this long after its time hangs.
GRACE = 20
# How often a busy iperf3 is asked again.
PATIENCE = 10
# Microseconds in which a paced load opens its connections; what is asked meanwhile does not count.
OPENING = 200_000


class Client:
    """Where load comes from."""

    def __init__(self, tools, at, core):
        self.tools, self.at, self.core = tools, at, core

    def wrk(self, url, seconds, connections, headers=()):
        """HTTP/1.1 as fast as it goes: {requests, rps, p50, p99, failed}; times in ms."""
        text = self._run([self.tools["wrk"], "-t1", f"-c{connections}", f"-d{seconds}s", "--latency",
                          *_headers(headers), url], seconds)
        done = re.search(r"(\d+) requests in ([\d.]+)(\w+),", text)
        if not done:
            raise RuntimeError(f"wrk says nothing that we understand:\n{text}")
        failed = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
        sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        failed += sum(int(count) for count in sockets.groups()) if sockets else 0
        requests = int(done[1])
        return {
            "requests": requests, "failed": failed, "seconds": _seconds(done[2] + done[3]),
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
            "p50": _percentile(text, 50), "p99": _percentile(text, 99),
        }

    def h2load(self, url, seconds, connections, streams, body, headers):
        """HTTP/2 without TLS as fast as it goes: POSTs of `body`, a file."""
        text = self._run([self.tools["h2load"], "-t1", f"-c{connections}", f"-m{streams}", "-D", seconds, "-d", body,
                          *_headers(headers), url], seconds)
        return _h2load(text)

    def paced(self, url, seconds, connections, rate, log):
        """HTTP/1.1 at a rate, whatever the answers do: what each request took, from a log of all of them.

        h2load paces each connection by itself. Opened one by each interval of the rate, they take turns evenly; opened
        at once, they would all ask in the same moment."""
        pathlib.Path(log).unlink(missing_ok=True)
        text = self._run([self.tools["h2load"], "--h1", "-t1", f"-c{connections}", "-m1", f"--rps={rate / connections}",
                          "-r1", f"--rate-period={1000 // rate}ms", "-n", seconds * rate, f"--log-file={log}", url],
                         seconds)
        with open(log) as lines:
            rows = [[int(word) for word in line.split("\t")] for line in lines]
        figures = _h2load(text)
        # h2load takes an answer without a reason phrase, as HTTP/2 gives it to a proxy, for none at all: count bytes.
        figures["requests"] = len(rows)
        figures["failed"] = len(rows) - int(re.search(r"\((\d+)\) data", text)[1]) // len(BODY)
        began = min(row[0] for row in rows) + OPENING
        took = sorted(row[2] / 1000 for row in rows if row[0] >= began)
        return figures | {
            "p50": _rank(took, 0.5), "p99": _rank(took, 0.99), "p999": _rank(took, 0.999)}

    def iperf3(self, address, port, seconds, *direction):
        """One TCP stream as fast as it goes: {gigabytes, gbit}."""
        command = [self.tools["iperf3"], "-c", address, "-p", port, "-t", seconds, "-J", *direction]
        for patience in range(PATIENCE, -1, -1):
            told = json.loads(self._run(command, seconds, fails=True))
            if "error" not in told:
                break
            # Its server takes one client at a time, and has to hear first that the last one went.
            if "busy" not in told["error"] or not patience:
                raise RuntimeError(f"iperf3: {told['error']}")
            time.sleep(0.2)
        received = told["end"]["sum_received"]
        return {"gigabytes": received["bytes"] / 1e9, "gbit": received["bits_per_second"] / 1e9, "failed": 0}

    def _run(self, command, seconds, fails=False):
        command = stage.inside(self.at.client) + ["taskset", "-c", str(self.core)] + [str(word) for word in command]
        done = subprocess.run(command, text=True, capture_output=True, timeout=seconds + GRACE)
        if done.returncode != 0 and not fails:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.stdout


def _headers(headers):
    return [word for header in headers for word in ("-H", header)]


def _h2load(text):
    done = re.search(r"finished in ([\d.]+\w+), ([\d.]+) req/s", text)
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", text)
    if not done or not counts:
        raise RuntimeError(f"h2load says nothing that we understand:\n{text}")
    answered, good, failed = map(int, counts.groups())
    # The mean only; where percentiles count, each request is logged.
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", text)
    return {"requests": good, "failed": failed + answered - good, "rps": float(done[2]),
            "mean": 1000 * _seconds(mean[1])}


def _rank(ordered, share):
    if not ordered:
        raise RuntimeError("no request was answered")
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _percentile(text, wanted):
    return 1000 * _seconds(re.search(rf"^\s*{wanted}%\s+([\d.]+\w+)", text, re.M)[1])


def _seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}[unit]
