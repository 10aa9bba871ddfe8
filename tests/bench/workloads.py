"""What is measured: each workload puts one kind of load on a candidate and returns its figures as a flat dictionary."""

import time

from . import grpc, web
from .applications import BULK, GRPC, HTTP, TCP
from .figures import Column
from .processes import wait_for
from .applications import HTTP

# In whole seconds, as wrk takes them.
WARM_UP = 1
# Idle connections, and how long memory is given to settle.
IDLE = 1000
SETTLES = 0.5


class Workload:
    """One kind of load."""

    name = ""
    says = ""
    # What the candidate must carry.
    kind = "http"
    columns = ()

    def __init__(self, seconds, profiler):
        self.seconds, self.profiler = seconds, profiler

    def takes(self, candidate):
        """Can it be measured?"""
        return self.kind in candidate.carries

    def measure(self, candidate):
        raise NotImplementedError

    def compare(self, by_candidate):
        """Adds figures that only the whole round can tell, when all rounds are there."""


class Loaded(Workload):
    """Load by a generator for a while, and what it cost the pair."""

    # What CPU time is divided by, and what that is called.
    per, unit = 100_000, "requests"

    def __init__(self, seconds, profiler):
        super().__init__(seconds, profiler)
        self.warm = set()

    def measure(self, candidate):
        if candidate.name not in self.warm:
            self.load(candidate, WARM_UP)
            self.warm.add(candidate.name)
        pair = candidate.pair()
        for program in pair:
            program.forget_peak()
        before = [program.cpu() for program in pair]
        began = time.monotonic()
        with self.profiler.beside(self.name, candidate):
            figures = self.load(candidate, self.seconds)
        took = time.monotonic() - began
        spent = [program.cpu() - past for program, past in zip(pair, before)]
        candidate.check_alive()
        if figures.pop("failed"):
            raise RuntimeError(f"requests failed: {figures}")
        if pair:
            outbound, inbound = (cpu / figures[self.unit] * self.per for cpu in spent)
            figures |= {
                "cpu": outbound + inbound, "cpu_outbound": outbound, "cpu_inbound": inbound,
                "per_cpu": figures[self.unit] / sum(spent), "cores": sum(spent) / took,
                "peak_outbound": pair[0].peak() / 1024, "peak_inbound": pair[1].peak() / 1024,
            }
        return figures

    def load(self, candidate, seconds):
        raise NotImplementedError


COST = (
    Column("cpu", "CPU s /100k", 2), Column("cpu_outbound", "out", 2), Column("cpu_inbound", "in", 2),
    Column("cores", "cores", 2), Column("peak_outbound", "peak MiB out", 1), Column("peak_inbound", "in", 1),
)
REQUESTS = (
    Column("rps", "req/s", 0, "more"), Column("per_cpu", "req per CPU s", 0, "more"),
    Column("p50", "p50 ms", 2), Column("p99", "p99 ms", 2), *COST,
)


class Http(Loaded):
    name = "http"
    says = "HTTP/1.1 keep-alive, 64 connections, answers of 1 KiB"
    columns = REQUESTS

    def load(self, candidate, seconds):
        return candidate.client.wrk(f"http://{candidate.address}:{HTTP}/", seconds, 64)


class Grpc(Loaded):
    name = "grpc"
    says = "gRPC unary, 8 connections with 16 streams each"
    kind = "grpc"
    columns = (*REQUESTS[:2], Column("mean", "mean ms", 2), *COST)

    def load(self, candidate, seconds):
        message = candidate.folder / "message"
        message.write_bytes(grpc.ask_for_stock("bolt"))
        return candidate.client.h2load(f"http://{candidate.address}:{GRPC}{grpc.STOCK}", seconds, 8, 16, message,
                                       grpc.HEADERS)


class HttpChurn(Loaded):
    name = "http-churn"
    says = "a new connection for each HTTP/1.1 request, 64 at a time"
    columns = REQUESTS
    port = HTTP

    def load(self, candidate, seconds):
        return candidate.client.wrk(f"http://{candidate.address}:{self.port}/", seconds, 64, ["Connection: close"])


class TcpChurn(HttpChurn):
    name = "tcp-churn"
    says = "a new connection for each request on an opaque port, 64 at a time"
    kind = "tcp"
    port = TCP


class BulkUp(Loaded):
    name = "bulk-up"
    says = "one TCP stream from the client to the server"
    kind = "bulk"
    columns = (Column("gbit", "Gbit/s", 2, "more"), Column("per_cpu", "GB per CPU s", 3, "more"),
               Column("cpu", "CPU s per GB", 2), *COST[1:])
    per, unit = 1, "gigabytes"
    direction = ()

    def load(self, candidate, seconds):
        return candidate.client.iperf3(candidate.address, BULK, seconds, *self.direction)


class BulkDown(BulkUp):
    name = "bulk-down"
    says = "one TCP stream from the server to the client"
    direction = ("--reverse",)


class Rate(Loaded):
    name = "rate"
    says = "1,000 HTTP/1.1 requests a second over 32 connections, open loop"
    columns = (Column("p50", "p50 ms", 3, "less"), Column("p99", "p99 ms", 3, "less"), Column("p999", "p99.9 ms", 2),
               Column("added_p50", "added p50 ms", 3), Column("added_p99", "added p99 ms", 3), *COST[:4])

    def load(self, candidate, seconds):
        # Rare answers are what this is about: it takes its time.
        seconds += 2
        return candidate.client.paced(f"http://{candidate.address}:{HTTP}/", seconds, 32, 1000,
                                      candidate.folder / "requests.log")

    def compare(self, by_candidate):
        for name, rounds in by_candidate.items():
            for figures, direct in zip(rounds, by_candidate.get("direct", [])):
                if figures and direct and name != "direct":
                    figures |= {f"added_{key}": figures[key] - direct[key] for key in ("p50", "p99")}


class Idle(Workload):
    name = "idle"
    says = "a new pair: from start to first answer; its memory then, and for each of 1,000 idle connections"
    columns = (
        Column("start", "start ms", 0, "less"), Column("rss_outbound", "RSS MiB out", 1, "less"),
        Column("rss_inbound", "RSS MiB in", 1, "less"), Column("pss_outbound", "PSS MiB out", 1),
        Column("pss_inbound", "in", 1), Column("own_outbound", "own MiB out", 1), Column("own_inbound", "in", 1),
        Column("http_outbound", "KiB per HTTP out", 1), Column("http_inbound", "in", 1),
        Column("tcp_outbound", "KiB per TCP out", 1), Column("tcp_inbound", "in", 1),
    )

    def takes(self, candidate):
        return bool(candidate.pair())

    def measure(self, candidate):
        figures = self.begin(candidate)
        figures |= self.connections(candidate, "http", HTTP)
        if "tcp" in candidate.carries:
            self.begin(candidate)
            figures |= self.connections(candidate, "tcp", TCP)
        return figures

    def begin(self, candidate):
        """A new pair, its first answer and its memory."""
        candidate.end()
        candidate.before_start()
        began = time.monotonic()
        candidate.launch()
        wait_for(f"a first answer through {candidate.name}", candidate.serves, pause=0.001)
        figures = {"start": 1000 * (time.monotonic() - began)}
        for side, memory in _memory(candidate).items():
            figures |= {f"{kind}_{side}": kibibytes / 1024 for kind, kibibytes in memory.items()}
        return figures

    def connections(self, candidate, kind, port):
        """Memory for each connection that was answered once and stays."""
        before, held = _memory(candidate), []
        try:
            for _ in range(IDLE):
                held.append(web.hold(candidate.at.client, candidate.address, port))
            after = _memory(candidate)
        finally:
            for connection in held:
                connection.close()
        return {f"{kind}_{side}": (after[side]["rss"] - before[side]["rss"]) / IDLE for side in after}


def _memory(candidate):
    time.sleep(SETTLES)
    return {"outbound": candidate.outbound.memory(), "inbound": candidate.inbound.memory()}


WORKLOADS = (Http, Grpc, HttpChurn, TcpChurn, BulkUp, BulkDown, Rate, Idle)
