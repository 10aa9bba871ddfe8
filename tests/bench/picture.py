"""The figures as one picture for people who read only one: a small panel for each question, a bar for each candidate.

Written by hand as SVG: no library, and it follows the reader's light or dark theme.
"""

import dataclasses
from xml.sax.saxutils import escape

from .figures import median


@dataclasses.dataclass(frozen=True)
class Panel:
    """One question."""

    workload: str
    key: str
    title: str
    says: str
    digits: int = 0


MORE = "longer is better"
LESS = "shorter is better"
PANELS = (
    Panel("http", "per_cpu", "HTTP/1.1, keep-alive", f"requests for each CPU second; {MORE}"),
    Panel("grpc", "per_cpu", "gRPC, unary", f"requests for each CPU second; {MORE}"),
    Panel("http-churn", "per_cpu", "HTTP, a connection for each request", f"requests for each CPU second; {MORE}"),
    Panel("tcp-churn", "per_cpu", "Opaque TCP, a connection for each request",
          f"connections for each CPU second; {MORE}"),
    Panel("bulk-up", "gbit", "One TCP stream, upwards", f"Gbit/s; {MORE}", 1),
    Panel("bulk-down", "gbit", "One TCP stream, downwards", f"Gbit/s; {MORE}", 1),
    Panel("rate", "p50", "Latency at 1,000 requests/s, median", f"ms; {LESS}", 2),
    Panel("rate", "p99", "Latency at 1,000 requests/s, 99th percentile", f"ms; {LESS}", 2),
    Panel("idle", "rss_outbound", "Memory of an idle sidecar", f"MiB resident; {LESS}", 1),
    Panel("idle", "http_outbound", "Memory of an idle HTTP connection", f"KiB in the outbound sidecar; {LESS}", 1),
    Panel("idle", "tcp_outbound", "Memory of an idle TCP connection", f"KiB in the outbound sidecar; {LESS}", 1),
    Panel("idle", "start", "Start of a pair to its first answer", f"ms; {LESS}"),
)
# Who is drawn. The others write no log for each request: so ours stands there a second time, without it.
DRAWN = ("douane", "douane-nolog", "haproxy-h2", "nginx", "envoy")
CALLED = {"douane": "Douane", "douane-nolog": "without its log", "haproxy-h2": "haproxy", "nginx": "nginx",
          "envoy": "Envoy"}

ACROSS = 2
WIDTH, GAP, EDGE = 452, 16, 20
NAMES, FIGURES = 104, 112
HEAD, ROW, BAR, FOOT = 52, 21, 13, 44

STYLE = """
  .paper { fill: #ffffff } .panel { fill: #f6f7f9 } .title { fill: #16202c; font-weight: 600 }
  .text { fill: #4a5666 } .other { fill: #a9b4c2 } .ours { fill: #1f6feb } .quiet { fill: #7fb0f5 }
  text { font: 12px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
  .title { font-size: 13px } .head { font-size: 16px }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .panel { fill: #161b22 } .title { fill: #e6edf3 } .text { fill: #9aa7b4 }
    .other { fill: #4b5563 } .ours { fill: #4493f8 } .quiet { fill: #2b5a9b }
  }
"""


def draw(record):
    """The picture of a whole run."""
    panels = [(panel, bars) for panel in PANELS if (bars := _bars(panel, record["results"]))]
    height = HEAD + ROW * max((len(bars) for _, bars in panels), default=1) + 12
    rows = -(-len(panels) // ACROSS)
    whole_width = 2 * EDGE + ACROSS * WIDTH + (ACROSS - 1) * GAP
    whole_height = EDGE + 34 + rows * (height + GAP) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole_width} {whole_height}" width="{whole_width}"'
        f' height="{whole_height}" role="img" aria-label="Douane beside other proxies">',
        f"<style>{STYLE}</style>", f'<rect class="paper" width="{whole_width}" height="{whole_height}" rx="8"/>',
        _text(EDGE, EDGE + 14, "A pair of sidecars with mutual TLS between, on one core", "title head"),
    ]
    for number, (panel, bars) in enumerate(panels):
        left = EDGE + number % ACROSS * (WIDTH + GAP)
        top = EDGE + 34 + number // ACROSS * (height + GAP)
        parts += _panel(panel, bars, left, top, height)
    foot = whole_height - FOOT + 16
    parts.append(_text(EDGE, foot, _first_line(record), "text"))
    parts.append(_text(EDGE, foot + 16,
                       "x: so many times Envoy's. Between the pair HTTP/2, by nginx HTTP/1.1; the others carry opaque TCP in a TLS"
                       " connection each. Repeat it: tests/bench/run", "text"))
    return "\n".join(parts + ["</svg>"]) + "\n"


def _bars(panel, results):
    by_candidate = results.get(panel.workload, {})
    found = ((name, median(by_candidate.get(name, []), panel.key)) for name in DRAWN)
    return [(name, value) for name, value in found if value is not None]


def _panel(panel, bars, left, top, height):
    yield f'<rect class="panel" x="{left}" y="{top}" width="{WIDTH}" height="{height}" rx="6"/>'
    yield _text(left + 14, top + 22, panel.title, "title")
    yield _text(left + 14, top + 38, panel.says, "text")
    longest = max(max(value for _, value in bars), 1e-9)
    envoy = dict(bars).get("envoy")
    room = WIDTH - 28 - NAMES - FIGURES
    for number, (name, value) in enumerate(bars):
        middle = top + HEAD + number * ROW + ROW / 2
        kind = {"douane": "ours", "douane-nolog": "quiet"}.get(name, "other")
        length = max(1.5, room * max(value, 0) / longest)
        yield _text(left + 14, middle + 4, CALLED[name], "title" if kind == "ours" else "text")
        yield (f'<rect class="{kind}" x="{left + 14 + NAMES}" y="{middle - BAR / 2}" width="{length:.1f}"'
               f' height="{BAR}" rx="2"/>')
        times = f"  {_short(value / envoy)}x" if envoy and envoy > 0 and name != "envoy" else ""
        yield _text(left + 14 + NAMES + length + 6, middle + 4, f"{value:,.{panel.digits}f}{times}",
                    "title" if kind == "ours" else "text")


def _short(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _first_line(record):
    return (f"{record['date'][:10]}, commit {record['commit'][:10]}, {record['cpu']}, Linux {record['kernel']};"
            f" median of {record['rounds']} interleaved rounds of {record['seconds']} s")


def _text(x, y, text, kind):
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" xml:space="preserve">{escape(text)}</text>'
