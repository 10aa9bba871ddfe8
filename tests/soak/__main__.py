"""What was asked for, and the order of things: the shop, its load, events until the time is up, the verdict."""

import argparse
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from . import verdict
from .events import Events
from .rotation import Rotation
from .load import Load
from .mesh import Mesh
from .watch import Watch

# Load without events, at the beginning and at the end: what is slow to come back shows.
QUIET = 8.0


def main():
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    room = pathlib.Path(tempfile.mkdtemp(prefix="douane-soak-"))
    room.chmod(0o755)
    kept = True
    try:
        found = endure(asked, room)
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
        print(verdict.write(found), flush=True)
        kept = bool(found["broken"])
        return 1 if found["broken"] else 0
    except KeyboardInterrupt:
        kept = False
        return 130
    finally:
        if kept:
            print(f"logs are kept in {room}", flush=True)
        else:
            shutil.rmtree(room, ignore_errors=True)


def endure(asked, room):
    print(f"seed {asked.seed}: --seed {asked.seed} draws the same events again", flush=True)
    mesh = Mesh(asked.lab, room)
    try:
        began = time.monotonic()
        ends = began + 60 * asked.minutes
        events = Rotation(mesh, asked.seed) if asked.rotation else Events(mesh, asked.seed)
        load, watch = Load(mesh, asked.load), Watch(mesh)
        time.sleep(QUIET)
        while events.are_left() and (pause := events.pause()) + time.monotonic() < ends - QUIET:
            time.sleep(pause)
            load.check()
            event = events.next()
            details = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("what", "at", "back"))
            print(f"{time.monotonic() - began:5.0f} s  {event['what']}: {details};"
                  f" {load.asked():,} requests, {len(load.failures)} failures", flush=True)
        while load.asked() < asked.requests or (time.monotonic() < ends and not asked.rotation):
            if time.monotonic() > ends + 60 * asked.minutes:
                raise RuntimeError(f"only {load.asked():,} requests in twice the time")
            time.sleep(1)
            load.check()
        watch.stop()
        load.end()
        return {"seed": asked.seed} | verdict.judge(load, events, watch, time.monotonic() - began)
    finally:
        mesh.end()


def arguments():
    parser = argparse.ArgumentParser(
        prog="tests/soak/run", description="Runs the shop under load while everything around it changes.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rotation", action="store_true",
                        help="instead of events that are drawn, replace intermediates and the root, and kill the control"
                             " plane, once each in order; ends after that and --requests")
    parser.add_argument("--requests", type=int, default=0, help="go on until so many were asked")
    parser.add_argument("--load", type=float, default=1, help="times the usual rates")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the events")
    parser.add_argument("--json", type=pathlib.Path, help="write all that was found to this file")
    parser.add_argument("--lab", type=pathlib.Path, help="the program; without it, it is built")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
