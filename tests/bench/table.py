"""The figures as text."""

from .figures import median, ratio

# Whom everybody is compared with.
AGAINST = ("envoy", "haproxy-h2")


def write(results, workloads):
    """One block for each workload: a line for each candidate, medians, and ratios of what counts."""
    blocks = []
    for workload in workloads:
        by_candidate = results.get(workload.name)
        if not by_candidate:
            continue
        columns = [column for column in workload.columns
                   if any(median(rounds, column.key) is not None for rounds in by_candidate.values())]
        compared = [(column, other) for column in columns if column.better for other in AGAINST
                    if other in by_candidate]
        titles = [column.title for column in columns] + [f"{column.title.split('/')[0]} x {other}" for column, other in compared]
        lines = [["", *titles]]
        for name, rounds in by_candidate.items():
            cells = [_or_dash(median(rounds, column.key), column.show) for column in columns]
            cells += [_or_dash(ratio(rounds, by_candidate[other], column.key), "{:.2f}".format)
                      for column, other in compared]
            lines.append([name, *cells])
        blocks.append(f"{workload.name}: {workload.says}\n{_aligned(lines)}")
    return "\n\n".join(blocks)


def _or_dash(value, show):
    return "-" if value is None else show(value)


def _aligned(lines):
    # A title of several words takes several lines: columns stay as wide as their figures.
    head = [title.split() for title in lines[0]]
    height = max(len(words) for words in head)
    rows = [[(words[at] if at < len(words) else "") for words in head] for at in range(height)] + lines[1:]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  " + "  ".join([row[0].ljust(widths[0])]
                                      + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]).rstrip()
                     for row in rows)
