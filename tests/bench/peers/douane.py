"""Ours, as it is run: two sidecars with their own redirection, a control plane that attests and signs, and a law that
allows the client's identity and nobody else."""

import json
import os
import pathlib
import subprocess

from .. import stage
from ..applications import PORTS
from ..papers import spiffe
from ..processes import Program, wait_for
from ..web import ask
from .candidate import Candidate

CONTROL_PLANE_PORT = 15012
APP_PROTOCOLS = {"http": "http", "grpc": "grpc", "tcp": "tcp", "bulk": "tcp"}
# Each account's pod. The intruder stands in for the client when the bench tries whether the law holds.
PODS = {"client": stage.CLIENT, "server": stage.SERVER, "intruder": stage.CLIENT_AT_OFFICE}


class Douane(Candidate):
    name = "douane"
    says = "as it is by default: law, metrics, an access log line for each request to a file"
    needs = ("douane", "douane-proxy")
    address = stage.SERVICE
    flags = ()

    def prepare(self):
        self.state, self.resources = self.folder / "state", self.folder / "resources"
        for folder in (self.state, self.resources):
            folder.mkdir()
        # JSON is YAML.
        for number, document in enumerate(_resources()):
            (self.resources / f"{number}.yaml").write_text(json.dumps(document))
        for namespace in (self.at.client, self.at.server):
            self.at.run(namespace, [self.tools["douane-proxy"], "redirect", "install", "--uid", str(stage.PROXY_UID)])
        # It rests while requests run: not on the pair's core.
        self.control_plane = Program(
            [self.tools["douane"], "ca", "--dir", self.state, "--resources", self.resources,
             "--listen", f"{stage.OFFICE}:{CONTROL_PLANE_PORT}"],
            self.at.office, self.cores.rest, self.folder / "control-plane.log")
        wait_for("the control plane", self._office_is_open)
        # Its own folder is nobody else's to read.
        self.bundle = self.folder / "bundle.pem"
        self.bundle.write_bytes((self.state / "bundle.pem").read_bytes())

    def before_start(self):
        for account in ("client", "server"):
            self.admit(account)

    def start_inbound(self):
        return self.sidecar("server", self.at.server)

    def start_outbound(self):
        return self.sidecar("client", self.at.client)

    def admit(self, account):
        """Writes a join token, which is spent by the next start of that account's sidecar."""
        made = subprocess.run(
            [self.tools["douane"], "ca", "token", "create", "--dir", self.state, "--identity", f"bench/{account}"],
            capture_output=True, text=True, check=True)
        self.token(account).write_text(made.stdout.strip())
        run = self.folder / f"{account}.run"
        run.mkdir(exist_ok=True)
        for path in (self.token(account), run):
            os.chown(path, stage.PROXY_UID, stage.PROXY_UID)

    def token(self, account):
        return self.folder / f"{account}.token"

    def sidecar(self, account, namespace):
        return self.program(
            [self.tools["douane-proxy"], "run", "--namespace", "bench", "--pod", account,
             "--pod-ip", PODS[account], "--control-plane", f"https://{stage.OFFICE}:{CONTROL_PLANE_PORT}",
             "--bundle-file", self.bundle, "--token-file", self.token(account),
             "--run-dir", self.folder / f"{account}.run", *self.flags],
            namespace, f"{account}.log")

    def proofs(self):
        self.outbound.end()
        self.admit("intruder")
        self.outbound = self.sidecar("intruder", self.at.client)
        refused = wait_for("an answer to the intruder", self._answer)
        yield "another identity of the same root gets 403", refused.status == 403
        if not self.flags:
            lines = [json.loads(line) for line in pathlib.Path(self.inbound.log).read_text().splitlines()]
            line = next((it for it in lines if it.get("kind") == "access" and it.get("status") == 200), {})
            yield ("the server's access log names the client, and TLS 1.3",
                   line.get("peer_id") == spiffe("client") and (line.get("tls") or {}).get("version") == "TLSv1.3")
        self.restart()
        self.wait_ready()

    def _answer(self):
        try:
            return ask(self.at.client, self.address, PORTS["http"], timeout=1)
        except OSError:
            return None

    def version(self):
        return subprocess.run([self.tools["douane-proxy"], "--version"], capture_output=True, text=True).stdout.strip()

    def _office_is_open(self):
        try:
            stage.connect(self.at.office, stage.OFFICE, CONTROL_PLANE_PORT).close()
            return (self.state / "bundle.pem").exists()
        except OSError:
            return False


class DouaneWithoutLog(Douane):
    name = "douane-nolog"
    says = "the same with --access-log off, as the peers are measured"
    flags = ("--access-log", "off")


def _resources():
    named = {"namespace": "bench"}
    ports = [{"name": kind, "containerPort": port, "protocol": "TCP"} for kind, port in PORTS.items()]
    for account, address in PODS.items():
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, **named}}
        yield {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": account, "labels": {"app": account, "douane.io/inject": "enabled"}, **named},
            "spec": {"serviceAccountName": account,
                     "containers": [{"name": account, "ports": ports if account == "server" else []}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }
    yield {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", **named},
        "spec": {"selector": {"app": "server"}, "clusterIP": stage.SERVICE, "clusterIPs": [stage.SERVICE],
                 "ports": [{"name": kind, "port": port, "targetPort": port, "protocol": "TCP",
                            "appProtocol": APP_PROTOCOLS[kind]} for kind, port in PORTS.items()]},
    }
    yield {
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "server", **named},
        "spec": {"selector": {"matchLabels": {"app": "server"}}, "action": "ALLOW",
                 "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/bench/sa/client"]}}]}]},
    }
