"""An agent as Istio's: asks for a certificate with a CSR of its own making, and writes what came into a folder.

istio_ca.py ADDRESS ROOTS TOKEN FOLDER rsa|ec [IMPERSONATED] -> the refusal's code on standard output, or OK
"""

import faulthandler
import os
import sys

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
messages, services = grpc.protos_and_services("istio_ca.proto")

KEYS = {"rsa": lambda: rsa.generate_private_key(65537, 2048), "ec": lambda: ec.generate_private_key(ec.SECP256R1())}
# What an agent is told of its authority.
NAME = "istiod.istio-system.svc"
# Seconds.
LIMIT = 120


def read(name):
    with open(name, "rb") as file:
        return file.read()


def main(address, roots, token, folder, kind, impersonated=None):
    key = KEYS[kind]()
    # As Istio's agents do: their identity, which nobody should believe.
    wish = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/istio-system/sa/istiod")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = request.add_extension(x509.SubjectAlternativeName([wish]), critical=True).sign(key, hashes.SHA256())
    asked = messages.IstioCertificateRequest(
        csr=request.public_bytes(Encoding.PEM).decode(), validity_duration=24 * 3600
    )
    asked.metadata["ClusterID"] = "Kubernetes"
    if impersonated:
        asked.metadata["ImpersonatedIdentity"] = impersonated
    secure = grpc.ssl_channel_credentials(root_certificates=read(roots))
    with grpc.secure_channel(address, secure, [("grpc.ssl_target_name_override", NAME)]) as channel:
        stub = services.IstioCertificateServiceStub(channel)
        metadata = [("authorization", f"Bearer {read(token).decode().strip()}"), ("clusterid", "Kubernetes")]
        try:
            answer = stub.CreateCertificate(asked, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code().name
    leaf, *issuers, bundle = answer.cert_chain
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    # One certificate in each element but the last.
    assert all(it.count("BEGIN CERTIFICATE") == 1 for it in [leaf, *issuers]), answer.cert_chain
    assert x509.load_pem_x509_certificate(leaf.encode()).public_key() == key.public_key()
    for name, text in {"key": private, "leaf": leaf, "issuers": "".join(issuers), "roots": bundle}.items():
        with open(os.open(os.path.join(folder, f"{name}.pem"), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
    return "OK"


if __name__ == "__main__":
    # As in workload_api.py: grpcio may stand still for ever, even at the end.
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    print(main(*sys.argv[1:]), flush=True)
    os._exit(0)
