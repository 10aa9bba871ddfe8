"""haproxy twice: HTTP/2 over mutual TLS between the two, one thread each, no log. The bar.

It cannot compare a SPIFFE ID: the outbound side compares the server's DNS name, the inbound side the client's common name.
"""

import subprocess

from .. import stage
from ..applications import PORTS
from .candidate import INBOUND, OUTBOUND, Configured

COMMON = """
global
    nbthread 1
    maxconn 8192
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    mode http
    http-reuse always
    # A retry would wait a second first, and spoil the time to the first request.
    retries 0
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


class Haproxy(Configured):
    name = "haproxy-h2"
    says = "HTTP/2 over mutual TLS between, no log"
    needs = ("haproxy",)

    def command(self, config):
        return [self.tools["haproxy"], "-db", "-q", "-f", config]

    def outbound_config(self):
        peer = (f"ssl ca-file {self.papers['ca.pem']} crt {self.papers['client.both']}"
                " verify required verifyhost server.bench")
        text = COMMON
        for kind in sorted(self.carries):
            text += f"listen {kind}\n    bind :{OUTBOUND[kind]}{' proto h2' if kind == 'grpc' else ''}\n"
            if kind in ("http", "grpc"):
                text += f"    server peer {stage.SERVER}:{PORTS[kind]} {peer} alpn h2\n"
            else:
                text += f"    mode tcp\n    server peer {stage.SERVER}:{PORTS[kind]} {peer}\n"
        return text

    def inbound_config(self, account):
        tls = f"ssl crt {self.papers[f'{account}.both']} ca-file {self.papers['ca.pem']} verify required"
        allowed = "unless { ssl_c_s_dn(cn) -m str client }"
        text = COMMON
        for kind in sorted(self.carries):
            if kind in ("http", "grpc"):
                text += (f"listen {kind}\n    bind :{INBOUND[kind]} {tls} alpn h2\n"
                         f"    http-request deny deny_status 403 {allowed}\n"
                         f"    server app {stage.SERVER}:{PORTS[kind]}{' proto h2' if kind == 'grpc' else ''}\n")
            else:
                text += (f"listen {kind}\n    mode tcp\n    bind :{INBOUND[kind]} {tls}\n"
                         f"    tcp-request content reject {allowed}\n"
                         f"    server app {stage.SERVER}:{PORTS[kind]}\n")
        return text

    def version(self):
        return subprocess.run([self.tools["haproxy"], "-v"], capture_output=True, text=True).stdout.split("\n")[0]
