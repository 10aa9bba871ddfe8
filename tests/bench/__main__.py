"""What was asked for, and the order of things: stages, proofs, rounds, and what is made of the figures."""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile

from . import floors, machine, markdown, picture, proofs, schedule, stage, table
from .applications import Applications
from .papers import Papers
from .peers import CANDIDATES
from .profile import Profiler
from .programs import Programs
from .workloads import WORKLOADS


@dataclasses.dataclass
class Cores:
    """Client, applications and control plane on one core, both proxies of a pair on the other."""

    rest: int
    pair: int


def main():
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="douane-bench-"))
    folder.chmod(0o755)
    try:
        return measure(asked, folder)
    except KeyboardInterrupt:
        print("interrupted: nothing is left behind", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(asked, folder):
    # A thousand connections are held at once, here and in each proxy.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = Cores(*sorted(os.sched_getaffinity(0))[:2])
    os.sched_setaffinity(0, {cores.rest})
    record = machine.describe()
    tools = Programs(asked.bin, os.environ.get("PATH", ""))
    profiler = Profiler(asked.profile)
    stage.prepare()
    candidates, left_out = [], []
    for make in chosen(asked, tools):
        try:
            candidate = set_up(make, tools, folder, cores)
            print(f"{candidate.name:13} is up: {candidate.says}. {candidate.version()}", flush=True)
            for claim in proofs.check(candidate):
                print(f"{'':13}   {claim}", flush=True)
            candidates.append(candidate)
        except (RuntimeError, OSError) as error:
            print(f"{make.name:13} is LEFT OUT: {error}", flush=True)
            left_out.append(make.name)
    workloads = [make(asked.seconds, profiler) for make in WORKLOADS if asked.only is None or make.name in asked.only]
    results = schedule.run(candidates, workloads, asked.rounds)
    print(f"\n{table.write(results, workloads)}\n\n{floors.write(results)}", flush=True)
    record |= {
        "rounds": asked.rounds, "seconds": asked.seconds, "results": results,
        "candidates": {it.name: {"says": it.says, "version": it.version()} for it in candidates},
    }
    if asked.json:
        asked.json.write_text(json.dumps(record, indent=1) + "\n")
    if asked.svg:
        asked.svg.write_text(picture.draw(record))
    if asked.markdown:
        asked.markdown.write_text(markdown.write(results))
    return 1 if left_out else 0


def chosen(asked, tools):
    """The candidates that take part; who cannot is named."""
    for make in CANDIDATES:
        if asked.candidates and make.name not in asked.candidates:
            continue
        if missing := tools.missing(make.needs):
            print(f"{make.name:13} is LEFT OUT: {', '.join(missing)} is missing", flush=True)
        else:
            yield make


def set_up(make, tools, folder, cores):
    """A candidate on its own stage, ready to serve."""
    own = folder / make.name
    own.mkdir()
    own.chmod(0o755)
    at = stage.Stage(make.name)
    applications = Applications(tools, at, own, cores.rest)
    papers = Papers(own / "papers", ("client", "server", "intruder"))
    candidate = make(tools, papers, at, own, cores)
    candidate.applications = applications
    candidate.prepare()
    candidate.start()
    candidate.wait_ready()
    return candidate


def arguments():
    names = [make.name for make in WORKLOADS]
    parser = argparse.ArgumentParser(
        prog="tests/bench/run", description="Measures our pair of sidecars beside others, on this machine, in one run.")
    parser.add_argument("--quick", action="store_true", help="one short round: figures to look at, not to publish")
    parser.add_argument("--only", type=words_of(names), help=f"workloads: {','.join(names)}")
    parser.add_argument("--candidates", type=words_of([make.name for make in CANDIDATES]),
                        help=f"{','.join(make.name for make in CANDIDATES)}")
    parser.add_argument("--rounds", type=int, help="of each workload [3; quick: 1]")
    parser.add_argument("--seconds", type=int, help="of each measurement [3; quick: 1]")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured to this file")
    parser.add_argument("--svg", type=pathlib.Path, help="draw a picture of it")
    parser.add_argument("--markdown", type=pathlib.Path, help="write a table for README")
    parser.add_argument("--profile", type=pathlib.Path, metavar="FOLDER",
                        help="let perf record each pair while it is measured; its figures are worse for it")
    parser.add_argument("--bin", type=pathlib.Path, help="a folder with our programs; without it they are built")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.quick else 3)
    asked.seconds = asked.seconds or (1 if asked.quick else 3)
    return asked


def words_of(known):
    """A parser of words separated by commas."""
    def parse(text):
        words = text.split(",")
        if unknown := set(words) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
        return words
    return parse


if __name__ == "__main__":
    sys.exit(main())
