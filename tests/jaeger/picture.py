"""Draws what Jaeger answered: the trace of an order as a waterfall, and the graph of who depends on whom.

`picture.py FOLDER OUT.svg`, where FOLDER holds trace.json and graph.json as `tests/jaeger/run --show FOLDER` left them."""

import json
import pathlib
import sys
from html import escape

WIDTH, ROW, LEFT, TOP = 960, 34, 330, 86
COLOURS = {"web": "#2f6f9f", "orders": "#b3541e", "inventory": "#3f7d4f"}
OTHER = "#6b6b6b"


def main():
    folder, out = (pathlib.Path(argument) for argument in sys.argv[1:])
    trace = json.loads((folder / "trace.json").read_text())
    graph = json.loads((folder / "graph.json").read_text())
    out.write_text(draw(rows(trace), graph))


def rows(trace):
    """Spans in the order of a waterfall: children below their parent, by time."""
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    spans = {
        span["spanID"]: {
            "service": services[span["processID"]],
            "name": span["operationName"],
            "kind": tag(span, "span.kind"),
            "parent": next((ref["spanID"] for ref in span["references"]), ""),
            "start": span["startTime"],
            "end": span["startTime"] + span["duration"],
            "identity": tag(span, "douane.local.spiffe_id"),
        }
        for span in trace["spans"]
    }

    def below(parent, depth):
        of = [(key, span) for key, span in spans.items() if span["parent"] == parent]
        for key, span in sorted(of, key=lambda it: it[1]["start"]):
            yield depth, span
            yield from below(key, depth + 1)

    roots = {span["parent"] for span in spans.values()} - set(spans)
    return [row for root in sorted(roots) for row in below(root, 0)]


def tag(span, key):
    return next((str(tag["value"]) for tag in span["tags"] if tag["key"] == key), "")


def draw(spans, graph):
    first = min(span["start"] for _, span in spans)
    whole = max(span["end"] for _, span in spans) - first or 1
    scale = (WIDTH - LEFT - 110) / whole
    bottom = TOP + ROW * len(spans)
    height = bottom + 210
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="An order of the shop as Jaeger has it" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(24, 34, "One order of the shop, as Jaeger has it", 19, weight="bold"),
        text(24, 58, "two spans for each hop: CLIENT by the caller's sidecar, SERVER by the receiver's", 13, "#555555"),
    ]
    for row, (depth, span) in enumerate(spans):
        y = TOP + ROW * row
        colour = COLOURS.get(span["service"], OTHER)
        x, width = LEFT + (span["start"] - first) * scale, max(2, (span["end"] - span["start"]) * scale)
        label = f'{span["service"]}  {span["name"]}'
        out += [
            text(24 + 16 * depth, y + 20, label, 13, colour, weight="bold"),
            f'<rect x="{x:.1f}" y="{y + 7}" width="{width:.1f}" height="17" rx="3" fill="{colour}" '
            f'opacity="{1 if span["kind"] == "server" else 0.55}"><title>{escape(span["identity"])}</title></rect>',
            text(x + width + 6, y + 20, f'{span["kind"].upper()} {(span["end"] - span["start"]) / 1000:.1f} ms', 11, "#333333"),
            f'<line x1="24" y1="{y + ROW}" x2="{WIDTH - 24}" y2="{y + ROW}" stroke="#eeeeee"/>',
        ]
    out.append(text(24, bottom + 44, "Who depends on whom, from Jaeger's dependency graph", 16, weight="bold"))
    out += nodes(graph, bottom + 110)
    return "\n".join([*out, "</svg>\n"])


def nodes(graph, y):
    """Services from left to right by how far they are from whoever nobody calls."""
    names = sorted({name for edge in graph for name in edge})
    depth = {name: 0 for name in names}
    for _ in names:
        for caller, called in graph:
            depth[called] = max(depth[called], depth[caller] + 1)
    at = {name: (150 + 300 * depth[name], y) for name in names}
    for caller, called in graph:
        (x1, y1), (x2, y2) = at[caller], at[called]
        yield f'<line x1="{x1 + 70}" y1="{y1}" x2="{x2 - 80}" y2="{y2}" stroke="#555555" stroke-width="2"/>'
        yield f'<path d="M {x2 - 82} {y2 - 6} l 12 6 l -12 6 z" fill="#555555"/>'
    for name, (x, y) in at.items():
        colour = COLOURS.get(name, OTHER)
        yield f'<rect x="{x - 70}" y="{y - 24}" width="140" height="48" rx="8" fill="{colour}"/>'
        yield text(x, y + 5, name, 15, "#ffffff", weight="bold", anchor="middle")


def text(x, y, words, size, colour="#111111", weight="normal", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


if __name__ == "__main__":
    main()
