"""A workload that uses stock libraries against the SPIFFE Workload API, found by SPIFFE_ENDPOINT_SOCKET.

workload_api.py fetch|watch|mtls|list|token -> JSON on standard output
"""

import faulthandler
import json
import os
import socket
import ssl
import sys
import tempfile
import threading

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier, load_der_x509_certificate
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from spiffe import JwtSvid, SpiffeId, WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import FetchJwtSvidError, ValidateJwtSvidError

PATIENCE = 40
# Of a whole task, seconds.
LIMIT = 200


def fetch():
    with WorkloadApiClient() as client:
        svid = client.fetch_x509_svid(timeout=PATIENCE)
        bundles = client.fetch_x509_bundles(timeout=PATIENCE)
    return {
        "spiffe_id": str(svid.spiffe_id),
        "chain": len(svid.cert_chain),
        "bundles": {f"spiffe://{domain}": len(bundle.x509_authorities) for domain, bundle in each(bundles)},
    }


def each(bundles):
    return [(bundle.trust_domain.name, bundle) for bundle in bundles.bundles]


def watch():
    """The serial numbers of three certificates, one after the other."""
    seen = []
    three = threading.Event()
    with X509Source(timeout_in_seconds=PATIENCE) as source:
        seen.append(source.svid.leaf.serial_number)

        def look():
            serial = source.svid.leaf.serial_number
            if serial != seen[-1]:
                seen.append(serial)
            if len(seen) >= 3:
                three.set()

        source.subscribe_for_updates(look)
        assert three.wait(PATIENCE), f"only {seen}"
    return {"serials": [str(serial) for serial in seen[:3]]}


def mtls():
    """Two ends of a socket, both with what the socket gave, each verifying the other by the bundle."""
    with WorkloadApiClient() as client:
        context = client.fetch_x509_context(timeout=PATIENCE)
    svid = context.default_svid
    (_, bundle), *_ = each(context.x509_bundle_set)
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "svid.pem")
        key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with open(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(b"".join([key, *(it.public_bytes(Encoding.PEM) for it in svid.cert_chain)]))
        roots = "".join(it.public_bytes(Encoding.PEM).decode() for it in bundle.x509_authorities)

        def end(protocol):
            made = ssl.SSLContext(protocol)
            made.check_hostname = False
            made.verify_mode = ssl.CERT_REQUIRED
            made.minimum_version = ssl.TLSVersion.TLSv1_3
            made.load_cert_chain(name)
            made.load_verify_locations(cadata=roots)
            return made

        server, client = end(ssl.PROTOCOL_TLS_SERVER), end(ssl.PROTOCOL_TLS_CLIENT)
    ours, theirs = socket.socketpair()
    saw = {}

    def serve():
        with server.wrap_socket(theirs, server_side=True) as stream:
            saw["server_saw"] = who(stream)
            stream.sendall(stream.recv(4))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(ours) as stream:
        saw["client_saw"] = who(stream)
        stream.sendall(b"ping")
        assert stream.recv(4) == b"ping"
    thread.join(PATIENCE)
    return saw


def who(stream):
    certificate = load_der_x509_certificate(stream.getpeercert(binary_form=True))
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    (name,) = names.get_values_for_type(UniformResourceIdentifier)
    return name


class Header(grpc.StreamStreamClientInterceptor):
    """What every request must carry."""

    def intercept_stream_stream(self, continuation, details, requests):
        metadata = [*(details.metadata or []), ("workload.spiffe.io", "true")]
        return continuation(details._replace(metadata=metadata), requests)


def list_services():
    endpoint = os.environ["SPIFFE_ENDPOINT_SOCKET"]
    with grpc.insecure_channel(endpoint) as channel:
        heard = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Header()))
        services = list(heard.get_services())
        service = DescriptorPool(heard).FindServiceByName("SpiffeWorkloadAPI")
        try:
            refused = ProtoReflectionDescriptorDatabase(channel).get_services() and "nothing"
        except grpc.RpcError as error:
            refused = error.code().name
    return {
        "services": services,
        "methods": [method.name for method in service.methods],
        "without_header": refused,
    }


def token():
    """A token, what the socket says of it, and what this library says of it by the keys that the socket gave."""
    with WorkloadApiClient() as client:
        svid = client.fetch_jwt_svid({"bank"}, timeout=PATIENCE)
        client.validate_jwt_svid(svid.token, "bank", timeout=PATIENCE)
        try:
            client.validate_jwt_svid(svid.token, "shop", timeout=PATIENCE)
            refused = "nothing"
        except ValidateJwtSvidError as error:
            refused = str(error)
        (bundle,) = client.fetch_jwt_bundles(timeout=PATIENCE).bundles
        again = client.fetch_jwt_svid({"bank"}, timeout=PATIENCE)
        try:
            client.fetch_jwt_svid({"bank"}, SpiffeId("spiffe://cluster.local/ns/shop/sa/orders"), timeout=PATIENCE)
            other = "nothing"
        except FetchJwtSvidError as error:
            other = str(error)
    verified = JwtSvid.parse_and_validate(svid.token, bundle, {"bank"})
    return {
        "spiffe_id": str(verified.spiffe_id),
        "audience": sorted(verified.audience),
        "keys": len(bundle.jwt_authorities),
        "for_another_audience": refused,
        "for_somebody_else": other,
        "kept": again.token == svid.token,
    }


TASKS = {"token": token, "fetch": fetch, "watch": watch, "mtls": mtls, "list": list_services}

if __name__ == "__main__":
    # grpcio was seen to stand still for ever, all its connections closed: then this ends, and says where it stood.
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    json.dump(TASKS[sys.argv[1]](), sys.stdout)
    sys.stdout.flush()
    # Nor does it wait for the library's threads at the end.
    os._exit(0)
