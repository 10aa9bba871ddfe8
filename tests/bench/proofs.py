"""Does each candidate do what it claims? Asked before it is measured: who skips the work is fast.

Strangers come as the proxies' user from the client pod, whom no rule redirects: they meet the inbound side itself.
"""

import ssl

from . import stage
from .applications import BODY, GRPC, HTTP, TCP
from .web import ask, ask_over


class Unproven(RuntimeError):
    """It does not do what it claims."""


def check(candidate):
    """What was shown, sentence by sentence; raises [`Unproven`]."""
    shown = []

    def demand(holds, claim):
        if not holds:
            raise Unproven(f"{candidate.name}: not true: {claim}")
        shown.append(claim)

    answer = ask(candidate.at.client, candidate.address, HTTP)
    demand(answer.status == 200 and answer.body == BODY.encode(), "the client is answered by the application")
    if "grpc" in candidate.carries:
        demand("available" in _stock(candidate), "a gRPC call is answered with its message")
    if candidate.pair():
        for port in sorted({HTTP, TCP} & set(candidate.ports())):
            demand(_plain(candidate, port) != 200, f"plaintext is refused on port {port}")
            demand(_tls(candidate, port, None)[0] != 200, f"TLS without a certificate is refused on port {port}")
        for claim, holds in candidate.proofs():
            demand(holds, claim)
        for stopped in ("outbound", "inbound"):
            getattr(candidate, stopped).end()
            demand(_status(lambda: ask(candidate.at.client, candidate.address, HTTP, timeout=2)) != 200,
                   f"nothing gets through without the {stopped} proxy")
            candidate.restart()
            candidate.wait_ready()
    return shown


def by_certificate(candidate):
    """The proofs of a peer whose certificates are files."""
    status, version = _tls(candidate, HTTP, "client")
    yield "the client's certificate is taken, by TLS 1.3", (status, version) == (200, "TLSv1.3")
    yield "another certificate of the same root gets 403", _tls(candidate, HTTP, "intruder")[0] == 403
    candidate.serve_as("intruder")
    yield ("a server with another identity is not talked to",
           _status(lambda: ask(candidate.at.client, candidate.address, HTTP, timeout=2)) != 200)
    candidate.serve_as("server")
    candidate.wait_ready()


def _stock(candidate):
    url = f"http://{candidate.address}:{GRPC}"
    return candidate.at.run(candidate.at.client, [candidate.tools["shop"], "grpc", "stock", url, "bolt"])


def _plain(candidate, port):
    def attempt():
        with stage.connect(candidate.at.client, stage.SERVER, port, 2, stage.PROXY_UID) as connection:
            return ask_over(connection, "server.bench")
    return _status(attempt)


def _tls(candidate, port, account):
    context = ssl.create_default_context(cafile=candidate.papers["ca.pem"])
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    if account:
        context.load_cert_chain(candidate.papers[f"{account}.pem"], candidate.papers[f"{account}.key"])
    version = None

    def attempt():
        nonlocal version
        with (stage.connect(candidate.at.client, stage.SERVER, port, 2, stage.PROXY_UID) as connection,
              context.wrap_socket(connection) as secured):
            version = secured.version()
            return ask_over(secured, "server.bench")
    return _status(attempt), version


def _status(attempt):
    """Of an answer; None if there was none."""
    try:
        return attempt().status
    except OSError:
        return None
