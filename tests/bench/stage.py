"""Two pods joined by a cable, and an office that both can reach: network namespaces, gone with the bench's own.

Each candidate has a stage of its own with the same addresses, so that all candidates are up at once and none has to be
started again between two measurements.
"""

import ctypes
import os
import socket
import subprocess

CLIENT = "10.78.0.1"
SERVER = "10.78.0.2"
# The office is where a control plane runs; a candidate without one leaves it empty.
OFFICE = "10.78.1.1"
CLIENT_AT_OFFICE = "10.78.1.2"
OFFICE_TO_SERVER = "10.78.2.1"
SERVER_AT_OFFICE = "10.78.2.2"
# What a service is called in ours; in the range that Kubernetes gives services. Routed nowhere: redirection takes it.
SERVICE = "10.96.0.10"

# The sidecars' user, whose connections no rule redirects.
PROXY_UID = 2112

CLONE_NEWNET = 0x40000000

# New connections for each request leave thousands in TIME_WAIT: without these a fast candidate would run out of ports or
# of room in the table of connections, and we would measure that.
SETTINGS = {
    "net.ipv4.ip_local_port_range": "20000 65535",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.core.somaxconn": "4096",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": "1",
    "net.netfilter.nf_conntrack_tcp_timeout_close": "1",
}


class Stage:
    """The three namespaces of one candidate."""

    def __init__(self, name):
        self.name = name
        self.client, self.server, self.office = (f"{name}-{place}" for place in ("client", "server", "office"))
        for namespace in self.namespaces():
            _do("ip", "netns", "add", namespace)
            self._ip(namespace, "link", "set", "lo", "up")
        self._cable(self.client, CLIENT, self.server, SERVER)
        self._cable(self.office, OFFICE, self.client, CLIENT_AT_OFFICE)
        self._cable(self.office, OFFICE_TO_SERVER, self.server, SERVER_AT_OFFICE)
        self._ip(self.client, "route", "add", "default", "via", OFFICE)
        self._ip(self.server, "route", "add", "default", "via", OFFICE_TO_SERVER)
        for namespace in (self.client, self.server):
            for setting, value in SETTINGS.items():
                self.run(namespace, ["sysctl", "-qw", f"{setting}={value}"])

    def namespaces(self):
        return self.client, self.server, self.office

    def run(self, namespace, command, **more):
        """Runs a short command in a namespace; fails aloud."""
        return _do(*inside(namespace), *command, **more)

    def redirect(self, outbound, inbound):
        """Sends what leaves the client pod, and what comes to the server pod, to other ports there: {port: port}."""
        self._rules(self.client, "type nat hook output priority -100;",
                    [f"meta skuid {PROXY_UID} accept"] + _redirections(outbound))
        self._rules(self.server, "type nat hook prerouting priority -100;",
                    [f"ip daddr != {SERVER} accept"] + _redirections(inbound))

    def _rules(self, namespace, hook, rules):
        lines = "\n".join(rules)
        self.run(namespace, ["nft", "-f", "-"], input=f"table inet bench {{\n chain c {{\n {hook}\n{lines}\n }}\n}}\n")

    def _cable(self, one, one_address, other, other_address):
        near, far = "v-" + other_address.split(".", 2)[2], "v-" + one_address.split(".", 2)[2]
        _do("ip", "link", "add", near, "netns", one, "type", "veth", "peer", "name", far, "netns", other)
        for namespace, link, address in ((one, near, one_address), (other, far, other_address)):
            self._ip(namespace, "address", "add", f"{address}/24", "dev", link)
            self._ip(namespace, "link", "set", link, "up")

    def _ip(self, namespace, *words):
        _do("ip", "-n", namespace, *words)


def prepare():
    """Keeps the names of our namespaces to ourselves: the mounts are private already."""
    os.makedirs("/run/netns", exist_ok=True)
    _do("mount", "-t", "tmpfs", "tmpfs", "/run/netns")


def inside(namespace):
    """What to put before a command that runs in a namespace. It executes the command: the process id stays."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


def connect(namespace, address, port, timeout=5, uid=0):
    """A connection from a namespace, by a user: its socket belongs to both for ever, so this process need not stay."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{namespace}") as other:
        if libc.setns(other.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"enter the namespace {namespace}")
        try:
            os.seteuid(uid)
            return socket.create_connection((address, port), timeout)
        finally:
            os.seteuid(0)
            libc.setns(own.fileno(), CLONE_NEWNET)


def _redirections(ports):
    return [f"tcp dport {port} redirect to :{other}" for port, other in ports.items()]


def _do(*command, **more):
    done = subprocess.run(command, text=True, capture_output=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
