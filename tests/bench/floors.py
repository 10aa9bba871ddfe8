"""What our own pair must reach, as one table; and whether it does."""

import dataclasses

from .figures import median, ratio

OURS = "douane"


@dataclasses.dataclass(frozen=True)
class Floor:
    """One demand: a figure of a workload, at least or at most so many times another's; or so much, if against nobody."""

    workload: str
    key: str
    word: str
    bound: float
    against: str | None
    says: str


FLOORS = (
    Floor("http", "per_cpu", "at least", 2.5, "envoy", "HTTP/1.1 requests for each CPU second"),
    Floor("http", "per_cpu", "at least", 0.85, "haproxy-h2", "HTTP/1.1 requests for each CPU second"),
    Floor("grpc", "per_cpu", "at least", 2.0, "envoy", "gRPC requests for each CPU second"),
    Floor("tcp-churn", "per_cpu", "at least", 6.0, "envoy", "opaque connections for each CPU second"),
    Floor("bulk-up", "gbit", "at least", 1.0, "envoy", "bulk from the client, Gbit/s"),
    Floor("bulk-down", "gbit", "at least", 1.0, "envoy", "bulk to the client, Gbit/s"),
    Floor("rate", "p50", "at most", 1.0, "haproxy-h2", "latency at 1,000 requests/s, median"),
    Floor("rate", "p99", "at most", 1.0, "haproxy-h2", "latency at 1,000 requests/s, 99th percentile"),
    Floor("idle", "rss_outbound", "at most", 10.0, None, "MiB of the idle outbound sidecar"),
    Floor("idle", "rss_inbound", "at most", 10.0, None, "MiB of the idle inbound sidecar"),
)


def verdicts(results, name=OURS):
    """[(floor, reached or None, holds or None)]: None where it was not measured."""
    found = []
    for floor in FLOORS:
        by_candidate = results.get(floor.workload, {})
        rounds = by_candidate.get(name, [])
        if floor.against:
            reached = ratio(rounds, by_candidate.get(floor.against, []), floor.key)
        else:
            reached = median(rounds, floor.key)
        holds = None if reached is None else (
            reached >= floor.bound if floor.word == "at least" else reached <= floor.bound)
        found.append((floor, reached, holds))
    return found


def write(results, name=OURS):
    """The verdicts as text."""
    lines = []
    for floor, reached, holds in verdicts(results, name):
        word = {True: "holds ", False: "BROKEN", None: "not measured"}[holds]
        times = f" times {floor.against}'s" if floor.against else ""
        figure = "" if reached is None else f": {reached:.2f}"
        lines.append(f"  {word}  {floor.says}, {floor.word} {floor.bound:g}{times}{figure}")
    return f"The floors, for {name}:\n" + "\n".join(lines)
