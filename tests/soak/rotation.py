"""The authority replaces its intermediate twice and its root once while it is killed in between: in this order, each
step waited for until it has taken effect. Whoever draws events at random is `events`."""

import json
import os
import signal
import subprocess
import time

from .events import Events

# A new root is prepared, published, acknowledged by all, active; then the old one retires with the last leaf under it.
ROOT_ROTATES = 120


class Rotation(Events):
    """Does one after the other."""

    def __init__(self, mesh, seed):
        super().__init__(mesh, seed)
        kill = ("the control plane is killed", lambda: self.end_process("control-plane", signal.SIGKILL))
        self.steps = [
            ("the intermediate is replaced", lambda: self.rotate("intermediate")), kill,
            ("the root is replaced", lambda: self.rotate("root")), kill,
            ("the intermediate is replaced", lambda: self.rotate("intermediate")), kill,
        ]

    def are_left(self):
        return bool(self.steps)

    def next(self):
        return self._do(*self.steps.pop(0))

    def rotate(self, what):
        before = self.status()
        began = time.monotonic()
        told = self.douane("ca", "rotate", what, "--wait")
        if told.returncode:
            raise RuntimeError(f"rotate {what}: {told.stderr.strip()}")
        after = self.status()
        if before == after:
            raise RuntimeError(f"rotate {what} changed nothing")
        return {"took": round(time.monotonic() - began, 2)}

    def status(self):
        told = self.douane("ca", "status", "-o", "json")
        if told.returncode:
            raise RuntimeError(f"ca status: {told.stderr.strip()}")
        return json.loads(told.stdout)

    def douane(self, *words):
        """The operator's command beside the control plane."""
        folder = self.mesh.authority()
        return subprocess.run(["douane", *words, "--dir", folder], executable=self.mesh.lab, capture_output=True,
                              text=True, timeout=ROOT_ROTATES, env=dict(os.environ))
