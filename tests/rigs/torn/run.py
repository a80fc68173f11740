#!/usr/bin/env python3
"""Kills programs while they save, and asks of everything that they leave whether it is a checkpoint.

    run.py --program outlast [--trials 25] [--seed N] [--kinds savez,joblib,...] [--orbax] [--live] [--keep]

Each trial starts a writer (writers.py), stops it at a random moment of a random save, asks
`outlast checkpoints --explain` of its directory while it is stopped, kills it and asks again. Then:

torn      something was called complete, or would be after a rest, and does not hold what was to be saved
missed    a save had returned, or all of it is there, and it is called incomplete

With --live, real runs are killed too, and what became durable is restored and loaded (live.py).

Either fails the rig. While a writer is stopped in the middle of a save, "rests" and "complete" are wrong for what it
writes. Needs numpy, and for their kinds safetensors, joblib, h5py, jax and orbax-checkpoint: kinds whose packages
are not there are left out by name.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDS = {
    "safetensors": ["safetensors"], "safetensors-in-order": ["safetensors"], "safetensors-sized-first": ["safetensors"],
    "hugging-face": ["safetensors"], "joblib": ["joblib"], "joblib-packed": ["joblib"], "hdf5": ["h5py"],
    "orbax": ["jax", "orbax"], "scikit-learn": ["joblib", "sklearn"],
}


class Writer:
    """A program that saves until it is ended."""

    def __init__(self, kind, directory, seed, megabytes):
        self.process = subprocess.Popen(
            [sys.executable, "-B", HERE / "writers.py", "save", kind, directory, str(seed), str(megabytes)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.begun, self.ended, self.said = [], [], b""

    def hear(self, piece):
        """Takes what it said, line by line; the last word of what it did."""
        *lines, self.said = (self.said + piece).split(b"\n")
        what = None
        for line in lines:
            what, _, path = line.decode().split(" ", 2)
            (self.begun if what == "begin" else self.ended).append(path)
        return what

    def until(self, what):
        descriptor = self.process.stdout.fileno()
        said = None
        while said != what:
            # More would take the next line too, which is waited for by itself.
            piece = os.read(descriptor, 1)
            if not piece:
                raise SystemExit(f"a writer ended by itself: {self.process.stderr.read()[-2000:].decode()}")
            said = self.hear(piece)

    def stop(self):
        """Stops it where it is; what it said until then is read."""
        self.process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            time.sleep(0.0005)
        descriptor = self.process.stdout.fileno()
        os.set_blocking(descriptor, False)
        try:
            while piece := os.read(descriptor, 1 << 16):
                self.hear(piece)
        except BlockingIOError:
            pass

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def explained(program, directory):
    """Name -> (state, why) of what lies directly in a directory."""
    said = subprocess.run(
        [program, "checkpoints", "--explain", "--json", directory], capture_output=True, text=True, check=True,
    )
    lines = json.loads(said.stdout)
    return {line["name"]: (line["state"], line["why"]) for line in lines[1:]}


def trial(program, kind, seed, megabytes, place, writers, counts, problems):
    draw = random.Random(seed)
    directory = place / f"{seed}-{kind}"
    directory.mkdir()
    writer = Writer(kind, directory, seed, megabytes)
    try:
        # How long a save takes here decides when it is stopped; the first ones show it.
        for _ in range(draw.randrange(1, 3)):
            writer.until("begin")
            began = time.monotonic()
            writer.until("end")
            took = time.monotonic() - began
        writer.until("begin")
        time.sleep(draw.random() * took * 1.1)
        writer.stop()
        running = Path(writer.begun[-1]).name if len(writer.begun) > len(writer.ended) else None
        tell(kind, seed, directory, explained(program, directory), writer, running, False, writers, counts, problems, megabytes)
    finally:
        writer.kill()
    tell(kind, seed, directory, explained(program, directory), writer, running, True, writers, counts, problems, megabytes)


def tell(kind, seed, directory, said, writer, running, dead, writers, counts, problems, megabytes):
    """Holds what is said against what is there."""
    counts["in the middle"] += running is not None
    returned = {Path(path).name for path in writer.ended} - {running}
    for name, (state, why) in said.items():
        taken = state in ("complete", "rests")
        whole = writers.holds(kind, str(directory / name), seed, megabytes)
        where = f"seed {seed}, {kind}, {name}, {'killed' if dead else 'stopped'}: {state} ({why})"
        counts[state] += 1
        if taken and not whole:
            problems.append(f"torn: {where}")
        elif not taken and whole and (dead or name != running) and "temporary name" not in why:
            # Orbax writes nothing more into what it has renamed, and the rest closes what it wrote. What it has begun
            # to delete is no checkpoint any more, though all data may still be there.
            steps = sorted((other for other in said if kind == "orbax" and other.isdigit()), key=int)
            if name not in steps[: -writers.KEPT]:
                problems.append(f"missed: {where}")
        elif taken:
            counts["whole"] += 1
    # Whoever keeps only the newest takes others away: what is gone is not judged.
    for name in returned:
        if (directory / name).exists() and name not in said:
            problems.append(f"missed: seed {seed}, {kind}: nothing is said of {name}, whose save had returned")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", required=True)
    arguments.add_argument("--trials", type=int, default=25)
    arguments.add_argument("--seed", type=int, default=None)
    arguments.add_argument("--megabytes", type=float, default=8)
    arguments.add_argument("--kinds")
    arguments.add_argument("--orbax", action="store_true", help="Orbax too: each trial takes seconds")
    arguments.add_argument("--live", action="store_true", help="real runs too; needs blake3, lz4 and zstandard")
    arguments.add_argument("--keep", action="store_true", help="leave what failed")
    given = arguments.parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE))
    import writers

    there = lambda kind: all(importlib.util.find_spec(name) for name in NEEDS.get(kind, []))  # noqa: E731
    kinds = given.kinds.split(",") if given.kinds else [k for k in writers.KINDS if given.orbax or k != "orbax"]
    absent = [kind for kind in kinds if not there(kind)]
    kinds = [kind for kind in kinds if there(kind)]
    if absent:
        print(f"torn: left out, their packages are not installed: {', '.join(absent)}")
    seed = given.seed if given.seed is not None else random.randrange(1 << 30)
    program = str(Path(given.program).resolve())
    counts, problems = Counter(), []
    place = Path(tempfile.mkdtemp(prefix="outlast-torn."))
    try:
        for number in range(given.trials):
            kind, before = kinds[number % len(kinds)], len(problems)
            trial(program, kind, seed + number, given.megabytes, place, writers, counts, problems)
            if len(problems) == before or not given.keep:
                shutil.rmtree(place / f"{seed + number}-{kind}")
            for problem in problems[before:]:
                print(problem, flush=True)
        before = len(problems)
        if given.live:
            import live

            live.runs(program, seed, given.megabytes, place, writers, counts, problems)
        for problem in problems[before:]:
            print(problem, flush=True)
    finally:
        if not given.keep:
            shutil.rmtree(place, ignore_errors=True)
    if counts["in the middle"] * 4 < given.trials:
        problems.append(f"only {counts['in the middle']} looks met a save in the middle: the rig showed nothing")
        print(problems[-1])
    if problems:
        raise SystemExit(f"torn: {len(problems)} problems, from seed {seed}")
    print(
        f"torn: {given.trials} writers of {len(kinds)} kinds killed from seed {seed}; of what they left, "
        f"{counts['whole']} whole were taken, {counts['incomplete']} refused; none torn, none missed"
    )
    if given.live:
        print(
            f"torn: {counts['durable']} durable checkpoints of {len(live.KINDS)} runs were restored and loaded, and "
            f"{counts['resumed']} killed programs went on from one"
        )


if __name__ == "__main__":
    main()
