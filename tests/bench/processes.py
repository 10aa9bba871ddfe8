"""Programs that run while the bench does: started on one core and in one namespace, ended by their own process id; and
what the kernel says of their CPU time and memory."""

import os
import signal
import subprocess
import time

from . import stage

TICKS = os.sysconf("SC_CLK_TCK")
MEMORY = {"rss": "Rss", "pss": "Pss", "own": "Anonymous"}
# Enough to write a last line; longer is a fault of the program, and not ours to wait for.
ENDS = 5.0


class Program:
    """A running program with all its children."""

    def __init__(self, command, namespace, core, log, uid=None):
        self.command = [str(word) for word in command]
        self.log = log
        prefix = stage.inside(namespace) + ["taskset", "-c", str(core)]
        if uid is not None:
            prefix += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        with open(log, "ab") as sink:
            self.process = subprocess.Popen(
                prefix + self.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def check_alive(self):
        if not self.alive():
            raise RuntimeError(f"{self.command[0]} ended; its last words:\n{self.last_words()}")

    def end(self):
        """Asks, waits, then insists."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(ENDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def pids(self):
        """This process and its descendants."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/children") as children:
                        waiting += [int(child) for child in children.read().split()]
            except OSError:
                pass
        return found

    def cpu(self):
        """CPU seconds so far, of all threads of all processes."""
        return sum(_cpu(pid) for pid in self.pids())

    def memory(self):
        """Resident memory in KiB; its share of what is in several processes; what is its own and no file's."""
        sums = dict.fromkeys(MEMORY, 0)
        for pid in self.pids():
            fields = _fields(f"/proc/{pid}/smaps_rollup")
            for kind, field in MEMORY.items():
                sums[kind] += fields[field]
        return sums

    def forget_peak(self):
        for pid in self.pids():
            with open(f"/proc/{pid}/clear_refs", "w") as switch:
                switch.write("5")

    def peak(self):
        """The most resident memory since it was forgotten, in KiB."""
        return sum(_fields(f"/proc/{pid}/status")["VmHWM"] for pid in self.pids())

    def last_words(self, lines=8):
        with open(self.log, errors="replace") as log:
            return "\n".join("    " + line.rstrip()[:300] for line in log.readlines()[-lines:]) or "    (nothing)"


def wait_for(what, condition, limit=15.0, pause=0.02):
    """Waits until a condition holds; says what did not."""
    deadline = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {limit:.0f} s in vain: {what}")
        time.sleep(pause)


def _cpu(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _fields(path):
    with open(path) as lines:
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return {name: int(value.split()[0]) for name, value in pairs if value.strip().endswith("kB")}
