"""What happens around the load, and when: drawn from a seed, so that a run can be repeated."""

import os
import random
import signal
import time

# Seconds between two events, drawn evenly.
BETWEEN = (6.0, 14.0)
# A drain takes 30 s at most, as a connection that somebody keeps demands; then a start.
COMES_BACK = 45
# How long a law may take to hold: a second, and what looking at it takes.
HOLDS = 4.0

# Whose sidecars are asked to end: another replica takes over. Whose are killed: these, and who has no other replica. All
# others live through the whole run, and their memory is watched.
REPLICATED = ("orders-1", "inventory-1")
KILLED = (*REPLICATED, "echo", "ledger-1")

ORDERS_LAW = "policy-orders.yaml"
INTRUDER = "cluster.local/ns/shop/sa/intruder"
WEB = 'principals: ["cluster.local/ns/shop/sa/web"]'


class Events:
    """Does one after the other, until it is told to end."""

    def __init__(self, mesh, seed):
        self.mesh = mesh
        self.random = random.Random(seed)
        self.law = (mesh.folder / ORDERS_LAW).read_text()
        self.done, self.broken = [], []
        self.plan = {
            "the law lets the intruder in, and out again": (4, self.edit),
            "a broken policy file": (1, self.spoil),
            "a sidecar is asked to end": (3, lambda: self.end_sidecar(signal.SIGTERM, REPLICATED)),
            "a sidecar is killed": (2, lambda: self.end_sidecar(signal.SIGKILL, KILLED)),
            "the control plane is asked to end": (1, lambda: self.end_process("control-plane", signal.SIGTERM)),
            "the control plane is killed": (1, lambda: self.end_process("control-plane", signal.SIGKILL)),
        }

    def are_left(self):
        return True

    def pause(self):
        return self.random.uniform(*BETWEEN)

    def next(self):
        """Does what is drawn, and waits until all is well again."""
        names = list(self.plan)
        name = self.random.choices(names, [self.plan[it][0] for it in names])[0]
        return self._do(name, self.plan[name][1])

    def _do(self, name, act):
        event = {"what": name, "at": time.time()}
        try:
            event |= act() or {}
        except RuntimeError as error:
            event["broken"] = str(error)
            self.broken.append(event)
        event["back"] = time.time()
        self.done.append(event)
        return event

    def kills(self):
        """Of sidecars, by SIGKILL: what was in flight there is excused."""
        return [event for event in self.done if event.get("signal") == "SIGKILL" and event["whom"] != "control-plane"]

    def edit(self):
        if WEB not in self.law:
            raise RuntimeError(f"{ORDERS_LAW} is not as it was")
        self.mesh.write(ORDERS_LAW, self.law.replace(WEB, WEB[:-1] + f', "{INTRUDER}"]'))
        opened = self._intruder_gets("200")
        self.mesh.write(ORDERS_LAW, self.law)
        return {"opened_after": opened, "closed_after": self._intruder_gets("403")}

    def spoil(self):
        self.mesh.write(ORDERS_LAW, self.law.replace("rules:", "rules: ["))
        time.sleep(3)
        last_good = self._intruder_gets("403")
        self.mesh.write(ORDERS_LAW, self.law)
        return {"still_closed_after": last_good}

    def end_sidecar(self, how, among):
        return self.end_process(self.random.choice(among), how)

    def end_process(self, name, how):
        pid = self.mesh.processes().get(name)
        if pid is None:
            raise RuntimeError(f"{name} does not run")
        os.kill(pid, how)
        began = time.monotonic()
        self._until(f"{name} is back", COMES_BACK, lambda: self.mesh.processes().get(name) not in (pid, None)
                    and (name == "control-plane" or self.mesh.pods().get(name, {}).get("ready")))
        return {"whom": name, "signal": how.name, "away": round(time.monotonic() - began, 2)}

    def _intruder_gets(self, status):
        began = time.monotonic()
        self._until(f"the intruder gets {status}", HOLDS, lambda: self._asks().startswith(status))
        return round(time.monotonic() - began, 2)

    def _asks(self):
        return self.mesh.run("intruder", "curl", "-so", "/dev/null", "-w", "%{http_code}", "http://orders.shop/orders")

    def _until(self, what, limit, holds):
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {limit:g} s: {what}")
            time.sleep(0.1)
