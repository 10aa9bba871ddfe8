"""What is served in each server pod: nginx for HTTP, the shop's inventory for gRPC, iperf3 for bulk. On the client's core."""

import json

from . import stage
from .processes import Program, wait_for

HTTP, GRPC, TCP, BULK = 8080, 8081, 9090, 9091
PORTS = {"http": HTTP, "grpc": GRPC, "tcp": TCP, "bulk": BULK}
BODY = "x" * 1024

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/app.pid;
error_log {folder}/app.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/app-body;
    proxy_temp_path {folder}/app-proxy;
    fastcgi_temp_path {folder}/app-fastcgi;
    uwsgi_temp_path {folder}/app-uwsgi;
    scgi_temp_path {folder}/app-scgi;
    server {{
        listen {http} backlog=4096;
        listen {tcp} backlog=4096;
        default_type text/plain;
        location / {{ return 200 {body}; }}
    }}
}}
"""


class Applications:
    """The servers of one stage."""

    def __init__(self, tools, at, folder, core):
        config = folder / "app.conf"
        config.write_text(NGINX.format(folder=folder, http=HTTP, tcp=TCP, body=json.dumps(BODY)))
        commands = [
            ("application-nginx", [tools["nginx"], "-c", config]),
            ("application-grpc", [tools["shop"], "inventory", "--listen", f"0.0.0.0:{GRPC}"]),
            ("application-iperf3", [tools["iperf3"], "--server", "--port", BULK]),
        ]
        self.programs = [Program(command, at.server, core, folder / f"{name}.log") for name, command in commands]
        for port in PORTS.values():
            wait_for(f"an application on port {port}", lambda port=port: self._listens(at, port))

    def _listens(self, at, port):
        for program in self.programs:
            program.check_alive()
        return listens(at, port)


def listens(at, port):
    """Does somebody listen in the server pod?"""
    try:
        stage.connect(at.server, stage.SERVER, port).close()
        return True
    except OSError:
        return False
