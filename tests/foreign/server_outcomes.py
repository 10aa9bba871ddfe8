"""An application that does what its path says: /status/N answers N, /headers tells what it was sent, /reset breaks the
connection, /slow sends a body in parts. Plain HTTP/1.1; its one argument is the port."""

import json
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Outcomes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        what, _, how = self.path.strip("/").partition("/")
        if what == "reset":
            # Sends a reset: nothing lingers.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
        elif what == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            for _ in range(10):
                self.wfile.write(b".")
                self.wfile.flush()
                time.sleep(float(how) / 10)
        else:
            body = json.dumps(dict(self.headers.items())).encode()
            self.send_response(int(how) if what == "status" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


Server(("::", int(sys.argv[1])), Outcomes).serve_forever()
