"""What a figure means, and how figures of several rounds become one: medians, and medians of ratios within a round."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Column:
    """One figure of a workload."""

    key: str
    title: str
    digits: int = 0
    # Is more of it better, or less? None: neither, it explains.
    better: str | None = None

    def show(self, value):
        return f"{value:,.{self.digits}f}"


def median(rounds, key):
    """Of the rounds that have it; None if there is none."""
    values = [figures[key] for figures in rounds if figures and key in figures]
    return statistics.median(values) if values else None


def ratio(rounds, others, key):
    """How many times the others' figure: the median over rounds, each of which compares neighbours in time."""
    ratios = [one[key] / other[key] for one, other in zip(rounds, others)
              if one and other and one.get(key) is not None and other.get(key)]
    return statistics.median(ratios) if ratios else None
