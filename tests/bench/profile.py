"""Where a pair spends its CPU time while it is measured: `perf record` beside it, for those who asked."""

import contextlib
import shutil
import signal
import subprocess

# A program of its own that ends by itself, soon.
ENDS = 10


class Profiler:
    """Writes FOLDER/WORKLOAD.CANDIDATE.SIDE.data; without a folder it does nothing."""

    def __init__(self, folder=None):
        self.folder = folder
        if folder and not shutil.which("perf"):
            raise SystemExit("--profile needs the program perf")

    @contextlib.contextmanager
    def beside(self, workload, candidate):
        recorders = [] if self.folder is None else [
            self._record(program, self.folder / f"{workload}.{candidate.name}.{side}.data")
            for side, program in zip(("outbound", "inbound"), candidate.pair())]
        try:
            yield
        finally:
            for recorder in recorders:
                recorder.send_signal(signal.SIGINT)
            for recorder in recorders:
                recorder.wait(ENDS)

    def _record(self, program, file):
        self.folder.mkdir(parents=True, exist_ok=True)
        pids = ",".join(map(str, program.pids()))
        # A virtual machine may have no counters: the clock always works.
        return subprocess.Popen(
            ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-g", "-p", pids, "-o", file],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
