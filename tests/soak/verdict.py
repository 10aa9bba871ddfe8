"""The bounds of a run, and whether they hold."""

from .load import sorted_out

# What a life of minutes may still grow by, in each minute: caches that fill, pages that the allocator keeps.
RSS_KIB_PER_MINUTE = 512
DESCRIPTORS_PER_MINUTE = 2.0
# So many a second, at least, or the load was none.
LEAST_RATE = 20


def judge(load, events, watch, seconds):
    """The whole run as one dictionary; `broken` says which bounds do not hold."""
    excused, unexcused = sorted_out(load.failures, events.kills())
    slopes = watch.slopes()
    broken = [f"{len(unexcused)} requests failed"] if unexcused else []
    broken += [f"{event['what']}: {event['broken']}" for event in events.broken]
    for name, slope in slopes.items():
        for key, bound in (("rss_kib_per_minute", RSS_KIB_PER_MINUTE),
                           ("descriptors_per_minute", DESCRIPTORS_PER_MINUTE)):
            if slope[key] is not None and slope[key] > bound:
                broken.append(f"{name}: {slope[key]:.1f} {key.replace('_', ' ')}, more than {bound}")
    if load.asked() < LEAST_RATE * seconds:
        broken.append(f"only {load.asked()} requests in {seconds:.0f} s")
    broken += [f"somebody said: {line}" for line in load.odd[:5]]
    return {
        "seconds": round(seconds), "requests": load.asked(), "done": load.done, "failed": len(unexcused),
        "failed_by_kill": len(excused), "failures": unexcused[:50], "failures_by_kill": excused[:50],
        "events": events.done, "slopes": slopes, "broken": broken,
    }


def write(found):
    """The run as text."""
    lines = [f"{found['requests']:,} requests in {found['seconds']} s: {found['failed']} failed;"
             f" beside them {found['failed_by_kill']} by kill -9 of their sidecar",
             "  " + ", ".join(f"{name} {count:,}" for name, count in found["done"].items())]
    counts = {}
    for event in found["events"]:
        counts[event["what"]] = counts.get(event["what"], 0) + 1
    lines += [f"  {count:3} times  {what}" for what, count in sorted(counts.items())]
    lines.append(f"  {'longest life of':16} {'s':>5} {'RSS KiB':>8} {'KiB/min':>8} {'files':>6} {'files/min':>9}")
    for name, slope in found["slopes"].items():
        cells = (_shown(slope[key], digits) for key, digits in (
            ("rss_kib_per_minute", 1), ("descriptors", 0), ("descriptors_per_minute", 2)))
        per_minute, files, files_per_minute = cells
        lines.append(f"  {name:16} {slope['seconds']:5} {slope['rss_kib']:8,} {per_minute:>8} {files:>6}"
                     f" {files_per_minute:>9}")
    for failure in found["failures"][:10]:
        lines.append(f"  failed: {failure['client']}: {failure['failed']}")
    lines += [f"  BROKEN: {what}" for what in found["broken"]] or ["  every bound holds"]
    return "\n".join(lines)


def _shown(value, digits):
    return "-" if value is None else f"{value:,.{digits}f}"
