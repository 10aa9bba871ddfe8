"""What every candidate is: a stage with applications, and between client and server a pair of proxies, or nothing."""

from .. import proofs, stage
from ..applications import PORTS, listens
from ..loads import Client
from ..processes import Program, wait_for
from ..web import ask

# Where peers with a port for each kind of traffic listen. All below the range of ephemeral ports.
OUTBOUND = {kind: port + 7000 for kind, port in PORTS.items()}
INBOUND = {kind: port + 10000 for kind, port in PORTS.items()}


class Candidate:
    """One way from the client to the server."""

    # What the table calls it, and what one should know of it.
    name = ""
    says = ""
    # Programs without which it cannot take part.
    needs = ()
    # Where the client finds the service.
    address = stage.SERVER
    # Which kinds of traffic it can carry.
    carries = frozenset(PORTS)

    def __init__(self, tools, papers, at, folder, cores):
        self.tools, self.papers, self.at, self.folder, self.cores = tools, papers, at, folder, cores
        self.client = Client(tools, at, cores.rest)
        self.outbound = self.inbound = None

    def prepare(self):
        """Once: configuration, rules, what else must run."""

    def start(self):
        """Starts the pair, the inbound side first. Does not wait."""
        self.before_start()
        self.launch()

    def before_start(self):
        """What each start needs, and no clock shall count."""

    def launch(self):
        self.inbound = self.start_inbound()
        self.outbound = self.start_outbound()

    def start_inbound(self):
        raise NotImplementedError

    def start_outbound(self):
        raise NotImplementedError

    def wait_ready(self):
        wait_for(f"a first request through {self.name}", self.serves)

    def serves(self):
        self.check_alive()
        try:
            return ask(self.at.client, self.address, PORTS["http"], timeout=1).status == 200
        except OSError:
            return False

    def check_alive(self):
        for program in self.pair():
            program.check_alive()

    def restart(self):
        self.end()
        self.start()

    def end(self):
        for program in self.pair():
            program.end()
        self.outbound = self.inbound = None

    def pair(self):
        return [program for program in (self.outbound, self.inbound) if program]

    def program(self, command, namespace, log, uid=stage.PROXY_UID):
        return Program(command, namespace, self.cores.pair, self.folder / log, uid)

    def ports(self):
        return [PORTS[kind] for kind in self.carries]

    def proofs(self):
        """(claim, does it hold?) of its own."""
        return ()

    def version(self):
        """What to write beside its figures."""
        return ""


class Configured(Candidate):
    """A peer that reads one configuration file for each side."""

    def prepare(self):
        self.at.redirect({PORTS[kind]: OUTBOUND[kind] for kind in self.carries},
                         {PORTS[kind]: INBOUND[kind] for kind in self.carries})
        self.file("outbound").write_text(self.outbound_config())
        self.file("inbound").write_text(self.inbound_config("server"))

    def serve_as(self, account):
        """Gives the inbound side another certificate."""
        self.file("inbound").write_text(self.inbound_config(account))
        self.inbound.end()
        self.inbound = self.start_inbound()
        wait_for("the inbound side", lambda: listens(self.at, INBOUND["http"]))

    def proofs(self):
        return proofs.by_certificate(self)

    def file(self, side):
        return self.folder / f"{side}.conf"

    def start_inbound(self):
        return self.program(self.command(self.file("inbound")), self.at.server, "inbound.log")

    def start_outbound(self):
        return self.program(self.command(self.file("outbound")), self.at.client, "outbound.log")

    def command(self, config):
        raise NotImplementedError

    def outbound_config(self):
        raise NotImplementedError

    def inbound_config(self, account):
        raise NotImplementedError
