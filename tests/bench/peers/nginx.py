"""nginx twice: HTTP/1.1 over mutual TLS between, one worker each, no log.

It cannot compare a SPIFFE ID: the outbound side compares the server's DNS name, the inbound side the client's common name.
Towards gRPC it would need a connection for each stream in flight: left out.
"""

import pathlib
import subprocess

from .. import stage
from ..applications import PORTS
from .candidate import INBOUND, OUTBOUND, Configured

STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

COMMON = """
daemon off;
master_process off;
pid {folder}/{side}.pid;
error_log stderr;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
"""
TEMPORARY = "\n".join(f"{kind}_temp_path {{folder}}/{kind};" for kind in (
    "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
ENDLESS = "keepalive_timeout 1h; keepalive_requests 1000000000;"


class Nginx(Configured):
    name = "nginx"
    says = "HTTP/1.1 over mutual TLS between, no log"
    needs = ("nginx",)

    def __init__(self, *all_of_it):
        super().__init__(*all_of_it)
        # The stream module is a package of its own.
        self.carries = frozenset({"http", "tcp", "bulk"} if pathlib.Path(STREAM_MODULE).exists() else {"http"})

    def prepare(self):
        super().prepare()
        # Its master is not root here: what it writes must be its own.
        self.folder.chmod(0o777)

    def command(self, config):
        return [self.tools["nginx"], "-c", config]

    def outbound_config(self):
        tls = (f"proxy_ssl_certificate {self.papers['client.pem']}; proxy_ssl_certificate_key"
               f" {self.papers['client.key']}; proxy_ssl_trusted_certificate {self.papers['ca.pem']};"
               " proxy_ssl_verify on; proxy_ssl_name server.bench; proxy_ssl_protocols TLSv1.3;"
               " proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;")
        http = f"""
            upstream peer {{ server {stage.SERVER}:{PORTS['http']}; keepalive 1024; {ENDLESS} }}
            server {{
                listen {OUTBOUND['http']} backlog=4096;
                location / {{
                    proxy_pass https://peer; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_set_header Host $http_host; {tls}
                }}
            }}"""
        streams = "".join(f"""
            server {{ listen {OUTBOUND[kind]} backlog=4096; proxy_pass {stage.SERVER}:{PORTS[kind]}; proxy_ssl on;
                proxy_timeout 1h; {tls} }}""" for kind in sorted(self.carries - {"http"}))
        return self._config("outbound", http, streams)

    def inbound_config(self, account):
        tls = (f"ssl_certificate {self.papers[f'{account}.pem']}; ssl_certificate_key {self.papers[f'{account}.key']};"
               f" ssl_client_certificate {self.papers['ca.pem']}; ssl_verify_client on; ssl_protocols TLSv1.3;"
               " ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;")
        http = f"""
            upstream app {{ server {stage.SERVER}:{PORTS['http']}; keepalive 1024; {ENDLESS} }}
            server {{
                listen {INBOUND['http']} ssl backlog=4096; {tls}
                if ($ssl_client_s_dn != "CN=client") {{ return 403; }}
                location / {{
                    proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_set_header Host $http_host;
                }}
            }}"""
        streams = "".join(f"""
            map $ssl_client_s_dn $to_{kind} {{ CN=client {stage.SERVER}:{PORTS[kind]}; default ""; }}
            server {{ listen {INBOUND[kind]} ssl backlog=4096; {tls} proxy_timeout 1h; proxy_pass $to_{kind}; }}"""
                          for kind in sorted(self.carries - {"http"}))
        return self._config("inbound", http, streams)

    def _config(self, side, http, streams):
        words = {"folder": self.folder, "side": side}
        module = f"load_module {STREAM_MODULE};\n" if streams else ""
        streams = f"stream {{ {streams}\n}}\n" if streams else ""
        return (module + COMMON.format(**words)
                + f"http {{ access_log off; {ENDLESS}\n{TEMPORARY.format(**words)}\n{http}\n}}\n{streams}")

    def version(self):
        return subprocess.run([self.tools["nginx"], "-v"], capture_output=True, text=True).stderr.strip()
