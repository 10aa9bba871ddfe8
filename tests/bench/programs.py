"""Where the programs are that the bench starts: ours by folder, the others among the tests' counterparts or on PATH."""

import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNTERPARTS = (ROOT / "target/counterparts/bin", ROOT / "target/counterparts/venv/bin")
SBIN = "/usr/sbin:/sbin:/usr/local/sbin"

OURS = ("douane", "douane-proxy", "shop")
FOREIGN = ("wrk", "h2load", "iperf3", "nginx", "haproxy", "envoy")


class Programs:
    """Programs by name; asks for a missing one raise."""

    def __init__(self, ours, path):
        folders = [*map(str, COUNTERPARTS), path, SBIN]
        self.found = {name: shutil.which(name, path=str(ours)) for name in OURS}
        self.found |= {name: shutil.which(name, path=":".join(folders)) for name in FOREIGN}

    def missing(self, names):
        return [name for name in names if not self.found[name]]

    def __getitem__(self, name):
        if not self.found[name]:
            raise RuntimeError(f"the program {name} is missing")
        return self.found[name]
