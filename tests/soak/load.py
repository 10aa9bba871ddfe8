"""The clients, seen from outside: what they asked and what failed, and whether a kill excuses it."""

import json
import threading

from .mesh import Lines

# From a kill until its sidecar is ready again, and what was begun before may still end badly after: in seconds.
AFTERWARDS = 3.0


class Load:
    """All clients of a run."""

    def __init__(self, mesh, times=1.0):
        self.lock = threading.Lock()
        self.done, self.failures, self.odd = {}, [], []
        self.programs = []
        for name, pod, *words in (
            ("checkout", "web", "http", "http://localhost:8080/checkout", 30 * times),
            ("orders", "web", "http", "http://orders.shop/orders", 50 * times),
            ("echo 1", "web", "echo", "echo.shop:7007", 0.05 / times),
            ("echo 2", "web", "echo", "echo.shop:7007", 0.5),
            ("inventory", "orders-2", "grpc", "http://inventory.shop:9090"),
        ):
            self.done[name] = 0
            program = mesh.client(pod, *map(str, words))
            Lines(program, lambda line, name=name: self.take(name, line))
            self.programs.append((name, program))

    def take(self, name, line):
        with self.lock:
            try:
                told = json.loads(line)
                if "failed" in told:
                    self.failures.append({"client": name, **told})
                else:
                    self.done[name] += told["done"]
            except (ValueError, KeyError, TypeError):
                self.odd.append(f"{name}: {line.strip()[:200]}")

    def check(self):
        """Each client runs; one that has ended is told of."""
        for name, program in self.programs:
            if program.poll() is not None:
                raise RuntimeError(f"the client {name} ended: {self.odd[-3:]}")

    def end(self):
        for _, program in self.programs:
            program.terminate()
        for _, program in self.programs:
            program.wait(30)

    def asked(self):
        return sum(self.done.values()) + len(self.failures)


def sorted_out(failures, kills):
    """(excused, unexcused): a kill -9 may fail what was in flight on that sidecar until it was back, nothing else may."""
    excused, unexcused = [], []
    for failure in failures:
        during = any(failure["at"] <= kill["back"] + AFTERWARDS and failure["until"] >= kill["at"] for kill in kills)
        (excused if during else unexcused).append(failure)
    return excused, unexcused
