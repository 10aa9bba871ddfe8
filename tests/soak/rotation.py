"""The authority replaces its intermediate twice and its root once, and is killed before, in the midst of it and after: in
this order, each step waited for until it has taken effect. Whoever draws events at random is `events`."""

import json
import signal
import subprocess
import time

from .events import Events

# Seconds. A command answers at once.
PATIENCE = 30
# A new root is published for five minutes at least before it signs, for whoever fetches bundles.
ROOT_SIGNS = 480
# Then the old one leaves with the last leaf below it.
ROOT_LEAVES = 120


class Rotation(Events):
    """Does one after the other."""

    def __init__(self, mesh, seed):
        super().__init__(mesh, seed)
        kill = ("the control plane is killed", lambda: self.end_process("control-plane", signal.SIGKILL))
        self.first_root = None
        self.steps = [
            ("the intermediate is replaced", self.replace_intermediate), kill,
            ("a new root is made", self.begin_root), kill, ("it signs, and the old one leaves", self.end_root), kill,
            ("the intermediate is replaced", self.replace_intermediate), kill,
        ]

    def are_left(self):
        return bool(self.steps)

    def next(self):
        return self._do(*self.steps.pop(0))

    def replace_intermediate(self):
        before = self.status()["intermediate"]["id"]
        self.douane("ca", "rotate", "intermediate")
        if self.status()["intermediate"]["id"] == before:
            raise RuntimeError("the intermediate is the same")

    def begin_root(self):
        self.first_root = self.signing_root()
        self.douane("ca", "rotate", "root")

    def end_root(self):
        began = time.monotonic()
        self._until("the new root signs", ROOT_SIGNS, lambda: self.signing_root() != self.first_root)
        signs = round(time.monotonic() - began, 2)
        self._until("the old root has left", ROOT_LEAVES, lambda: len(self.status()["roots"]) == 1)
        return {"signed_after": signs, "left_after": round(time.monotonic() - began, 2)}

    def signing_root(self):
        return next(root["id"] for root in self.status()["roots"] if root["phase"] == "active")

    def status(self):
        return json.loads(self.douane("ca", "status", "-o", "json"))

    def douane(self, *words):
        """The operator's command beside the control plane: what it prints."""
        told = subprocess.run(["douane", *words, "--dir", self.mesh.authority()], executable=self.mesh.lab,
                              capture_output=True, text=True, timeout=PATIENCE)
        if told.returncode:
            raise RuntimeError(f"{' '.join(words)}: {told.stderr.strip()}")
        return told.stdout
