"""The figures as a table for README: a line for each question, a column for each candidate."""

from .figures import median
from .picture import CALLED, DRAWN, PANELS


def write(results):
    names = [name for name in DRAWN if any(name in by_candidate for by_candidate in results.values())]
    lines = ["| | " + " | ".join(CALLED[name] for name in names) + " |", "|---|" + "--:|" * len(names)]
    for panel in PANELS:
        by_candidate = results.get(panel.workload, {})
        values = [median(by_candidate.get(name, []), panel.key) for name in names]
        if any(value is not None for value in values):
            cells = ["" if value is None else f"{value:,.{panel.digits}f}" for value in values]
            lines.append(f"| {panel.title}: {panel.says.split(';')[0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
