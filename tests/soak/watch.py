"""Memory and descriptors of every sidecar and of the control plane over time, and how steep they are."""

import os
import threading
import time

EVERY = 2.0
# A process warms up: pools, caches and windows grow to what the load needs.
WARM_UP = 60.0
# A shorter life says nothing: each kill of a peer leaves a bump.
SHORTEST = 150.0


class Watch(threading.Thread):
    """Samples until it is told to stop."""

    def __init__(self, mesh):
        super().__init__(daemon=True)
        self.mesh, self.stopping = mesh, threading.Event()
        # {(name, process id): [(time, KiB, descriptors or None)]}
        self.samples = {}
        self.start()

    def run(self):
        while not self.stopping.wait(EVERY):
            for name, pid in self.mesh.processes().items():
                sample = _sample(pid)
                if sample:
                    self.samples.setdefault((name, pid), []).append((time.monotonic(), *sample))

    def stop(self):
        self.stopping.set()
        self.join()

    def slopes(self):
        """Of each name's longest life: {name: {seconds, rss_kib, rss_kib_per_minute, descriptors_per_minute}}."""
        longest = {}
        for (name, _), samples in self.samples.items():
            if len(samples) > len(longest.get(name, [])):
                longest[name] = samples
        found = {}
        for name, samples in sorted(longest.items()):
            warm = [sample for sample in samples if sample[0] >= samples[0][0] + WARM_UP]
            lasted = warm[-1][0] - warm[0][0] if warm else 0.0
            counted = [(at, count) for at, _, count in warm if count is not None]
            found[name] = {
                "seconds": round(samples[-1][0] - samples[0][0]),
                "rss_kib": samples[-1][1], "descriptors": samples[-1][2],
                "rss_kib_per_minute": _slope([(at, rss) for at, rss, _ in warm]) if lasted >= SHORTEST else None,
                "descriptors_per_minute": _slope(counted) if lasted >= SHORTEST and counted else None,
            }
        return found


def _sample(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            rss = next((int(line.split()[1]) for line in status if line.startswith("VmRSS:")), None)
    except OSError:
        return None
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        # A hardened process shows them to root alone.
        descriptors = None
    return None if rss is None else (rss, descriptors)


def _slope(points):
    """Of the line that fits best, for each minute."""
    count = len(points)
    middle, mean = sum(at for at, _ in points) / count, sum(value for _, value in points) / count
    spread = sum((at - middle) ** 2 for at, _ in points)
    return 60 * sum((at - middle) * (value - mean) for at, value in points) / spread if spread else 0.0
