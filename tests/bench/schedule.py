"""Who is measured when: every candidate once in each round of a workload, each round in the opposite order."""

import time


def run(candidates, workloads, rounds):
    """{workload: {candidate: [figures of each round]}}. A round that failed is said aloud, and None."""
    began = time.monotonic()
    results = {}
    for workload in workloads:
        results[workload.name] = {it.name: [] for it in candidates if workload.takes(it)}
        print(f"\n{workload.name}: {workload.says}", flush=True)
        for number in range(rounds):
            for candidate in candidates if number % 2 == 0 else reversed(candidates):
                if workload.takes(candidate):
                    figures = _measure(workload, candidate)
                    results[workload.name][candidate.name].append(figures)
                    if figures:
                        _say(f"{time.monotonic() - began:5.0f} s  round {number + 1}/{rounds}  {candidate.name:13}",
                             workload, figures)
        workload.compare(results[workload.name])
    return results


def _measure(workload, candidate):
    try:
        candidate.check_alive()
        return workload.measure(candidate)
    except Exception as error:  # whatever it is: one round of one candidate shall not end the bench
        print(f"FAILED: {workload.name} by {candidate.name}: {type(error).__name__}: {error}", flush=True)
    # What failed may be half broken: a new pair for the next workload.
    try:
        candidate.restart()
        candidate.wait_ready()
    except Exception as error:  # as above; the next round tries again
        print(f"FAILED: {candidate.name} does not come back: {error}", flush=True)
    return None


def _say(place, workload, figures):
    told = (f"{column.show(figures[column.key])} {column.title}" for column in workload.columns
            if column.key in figures)
    print(f"  {place} {', '.join(told)}", flush=True)
