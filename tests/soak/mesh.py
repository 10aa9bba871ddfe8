"""The running lab: the shop with more replicas and an echo, its processes, its files."""

import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

SHOP = pathlib.Path(__file__).resolve().parents[2] / "kind-cluster/shop"
CLIENTS = pathlib.Path(__file__).with_name("clients.py")
READY = 120
# Of the shop's certificates: renewed every five seconds or so.
LEAF = "10s"

# A pod that sends back what it gets, for a stream of which every byte is checked.
ECHO = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: echo, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, namespace: shop, labels: {app: echo, douane.io/inject: enabled}}
spec:
  serviceAccountName: echo
  containers:
  - {name: echo, command: [python3, CLIENTS, echo-server, "7007"], ports: [{name: tcp, containerPort: 7007}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {selector: {app: echo}, ports: [{name: tcp, appProtocol: tcp, port: 7007, targetPort: tcp}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: echo, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
"""


class Mesh:
    """A lab that runs until it is ended."""

    def __init__(self, lab, room):
        self.lab, self.room = lab, pathlib.Path(room)
        self.folder, self.logs = self.room / "shop", self.room / "logs"
        self.runtime = self.room / "run"
        for made in (self.logs, self.runtime):
            made.mkdir()
        shutil.copytree(SHOP, self.folder)
        # Whoever has a second replica can lose its first without anybody noticing.
        inventory = self.folder / "inventory.yaml"
        inventory.write_text(inventory.read_text().replace("replicas: 1", "replicas: 2"))
        # Pods must be able to read it, whoever they are.
        clients = self.room / "clients.py"
        shutil.copyfile(CLIENTS, clients)
        self.clients = str(clients)
        (self.folder / "echo.yaml").write_text(ECHO.replace("CLIENTS", self.clients))
        self.said = self.room / "lab.log"
        with self.said.open("wb") as sink:
            self.launcher = subprocess.Popen(
                [lab, "up", self.folder, "--leaf-ttl", LEAF, "--log-dir", self.logs], env=self._environment(),
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
        deadline = time.monotonic() + READY
        while "ready in" not in self.said.read_text():
            if self.launcher.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the lab is not ready:\n{self.said.read_text()}")
            time.sleep(0.1)

    def start(self, pod, *command):
        """A program in a pod; its output is a pipe."""
        return subprocess.Popen([self.lab, "exec", pod, "--", *command], env=self._environment(), text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, pod, *command):
        """A program in a pod, to its end: what it printed."""
        return self.start(pod, *command).communicate(timeout=60)[0]

    def client(self, pod, *words):
        return self.start(pod, "python3", self.clients, *words)

    def pods(self):
        """`lab status`: of each pod, whether it is ready."""
        told = subprocess.run([self.lab, "status", "-o", "json"], env=self._environment(), capture_output=True, text=True)
        return {pod["pod"]: pod for pod in json.loads(told.stdout or "[]")}

    def processes(self):
        """{name: process id} of each sidecar and the control plane that runs now."""
        found = {}
        for pid in _below(self.launcher.pid):
            words = _command_line(pid)
            if words[:2] == ["douane", "ca"]:
                found["control-plane"] = pid
            elif "douane-proxy" in words and "run" in words and "--pod" in words:
                # A launcher that has not become the sidecar yet has the same words: the deepest is the last.
                found[words[words.index("--pod") + 1]] = pid
        return found

    def authority(self):
        """The folder of the control plane's state."""
        words = _command_line(self.processes()["control-plane"])
        return words[words.index("--dir") + 1]

    def write(self, name, text):
        """Replaces a file of the shop, at once and whole."""
        part = self.room / "part"
        part.write_text(text)
        part.rename(self.folder / name)

    def end(self):
        if self.launcher.poll() is None:
            self.launcher.terminate()
            try:
                self.launcher.wait(30)
            except subprocess.TimeoutExpired:
                self.launcher.kill()
                self.launcher.wait()

    def _environment(self):
        return os.environ | {"XDG_RUNTIME_DIR": str(self.runtime)}


class Lines(threading.Thread):
    """Reads what a program prints, line by line, and hands each to somebody."""

    def __init__(self, program, take):
        super().__init__(daemon=True)
        self.program, self.take = program, take
        self.start()

    def run(self):
        for line in self.program.stdout:
            self.take(line)


def _below(root):
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    waiting += [int(child) for child in children.read().split()]
        except OSError:
            pass
    return found


def _command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as line:
            return line.read().split("\0")[:-1]
    except OSError:
        return []
