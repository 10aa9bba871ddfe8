"""Certificates for peers that have no control plane: one root, and P-256 leaves with SPIFFE IDs, by openssl."""

import pathlib
import subprocess

DOMAIN = "cluster.local"


def spiffe(account):
    return f"spiffe://{DOMAIN}/ns/bench/sa/{account}"


class Papers:
    """A folder of PEM files: `ca.pem`, and for each account NAME.pem, NAME.key and NAME.both."""

    def __init__(self, folder, accounts):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self._self_signed("ca", "/CN=the bench's root", [
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"])
        for account in accounts:
            # Peers that cannot compare a URI compare the common name, or the DNS name, instead.
            self._self_signed(account, f"/CN={account}", [
                "-CA", self["ca.pem"], "-CAkey", self["ca.key"],
                "-addext", f"subjectAltName=URI:{spiffe(account)},DNS:{account}.bench",
                "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
                "-addext", "extendedKeyUsage=serverAuth,clientAuth"])
            both = pathlib.Path(self[f"{account}.both"])
            both.write_text(pathlib.Path(self[f"{account}.pem"]).read_text()
                            + pathlib.Path(self[f"{account}.key"]).read_text())
        for file in self.folder.iterdir():
            file.chmod(0o644)

    def __getitem__(self, name):
        return str(self.folder / name)

    def _self_signed(self, name, subject, more):
        done = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2",
             "-subj", subject, "-keyout", self[f"{name}.key"], "-out", self[f"{name}.pem"], *more],
            capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"openssl makes no certificate for {name}: {done.stderr}")
