#!/usr/bin/env python3
"""Kills whatever publishes, restores, lets go and deletes, and asks whether anything durable was lost.

    run.py --program outlast --restorer restore_tree [--kills 20] [--seed N] [--keep]

A run saves ten times a second; `outlast tidy --grace 0s` lets go of its old checkpoints all the time and deletes what
nothing needs. Meanwhile SIGKILL comes at random moments to the controller (commit, retention, deletion), the agent
(publishing), the whole machine (the next one restores) and `tidy` itself. Some checkpoints are pinned on the way.
After six machines within an hour a run waits for a person, who is this rig: `outlast resume`. But for that it must go
on by itself: something newer becomes durable all the time. No attempt may be lost whose machine was not killed, and
every checkpoint that is listed as durable, and every pinned one, must come back from the store as its step says. The
restorer is artifacts/examples/restore_tree.rs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 240
# A run whose machines are lost one after the other without a durable step between them is given up: fewer are killed.
FRUITLESS = 4
CONFIG = """[run]
command = ["python3", "train.py"]
[environment]
kind = "none"
[checkpoints]
keep_local = 1
keep_latest = 2
keep_all = "0s"
keep_daily = "0s"
keep_weekly = "0s"
[retry]
failures = 20
"""
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from train import content  # noqa: E402


class Lab:
    def __init__(self, program, place):
        self.program, self.place = program, place
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
        self.env["OUTLAST_HOME"] = str(place / "home")
        self.over, self.tidies, self.current = threading.Event(), Counter(), None
        self.storms, self.newest, self.moved, self.fruitless = 0, 0, time.monotonic(), 0

    def call(self, *args, check=True):
        said = subprocess.run([self.program, *args], capture_output=True, text=True, env=self.env, timeout=PATIENCE)
        if check and said.returncode != 0:
            raise SystemExit(f"kills: outlast {' '.join(args)} ended with {said.returncode}: {said.stderr[-1500:]}")
        return said

    def json(self, *args):
        return json.loads(self.call(*args, "--json").stdout)

    def processes(self):
        """(pid, command line, environment) of everything that belongs to this installation."""
        mark = f"OUTLAST_HOME={self.place}/home".encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")[:-1]
                environ = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            near = str(self.place).encode()
            if mark in environ or any(near in word for word in words + environ[:0]) or any(near in e for e in environ):
                yield int(entry), [word.decode(errors="replace") for word in words]

    def doing(self, verb):
        return [pid for pid, words in self.processes() if len(words) > 2 and words[1] == verb and words[2] != "--version"]

    def tidy(self):
        """Lets go and deletes, again and again; also where it is killed."""
        while not self.over.is_set():
            self.current = subprocess.Popen(
                [self.program, "tidy", "--yes", "--grace", "0s"], env=self.env,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            self.tidies["done" if self.current.wait() == 0 else "cut short"] += 1
            self.over.wait(0.05)

    def durable(self, run):
        return [c for c in self.json("checkpoints", run) if c["state"] in ("COMMITTED", "PINNED")]

    def go_on(self, run):
        """Answers as a person would who knows why six machines of a run were lost within an hour."""
        now = self.json("status", run)["run"]
        if now["ended_ms"]:
            raise SystemExit(f"kills: the run has ended: {now['state']}, {now['reason']}")
        if now["state"] == "WAITING":
            self.call("resume", run, "--detach")
            self.storms += 1
        if (now["durable_step"] or 0) > self.newest:
            self.newest, self.moved, self.fruitless = now["durable_step"], time.monotonic(), 0
        if time.monotonic() - self.moved > PATIENCE:
            raise SystemExit(f"kills: nothing became durable for {PATIENCE} s, in {now['state']}")

    def until(self, what, run, look):
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            if (found := look()) is not None:
                return found
            if what != "the end of the run":
                self.go_on(run)
            time.sleep(0.1)
        told = self.call("status", run, check=False).stdout + self.call("events", run, check=False).stdout[-4000:]
        raise SystemExit(f"kills: it did not come: {what}\n{told}")

    def end(self):
        self.over.set()
        for _ in range(50):
            left = [pid for pid, _ in self.processes() if pid != os.getpid()]
            if not left:
                return
            for pid in left:
                kill(pid)
            time.sleep(0.1)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def strike(lab, draw, counts):
    """One kill, of something that is there."""
    what = draw.choices(["agent", "controller", "machine", "tidy"], [35, 35, 15, 15])[0]
    if what == "controller":
        victims = lab.doing("controller-serve")
    elif what == "tidy":
        victims = [lab.current.pid] if lab.current and lab.current.poll() is None else []
    elif what == "agent":
        victims = lab.doing("agent")
    elif lab.fruitless >= FRUITLESS:
        victims = []
    else:
        victims = lab.doing("guard") + lab.doing("agent") + lab.doing("keeper")
        victims += [pid for pid, words in lab.processes() if "train.py" in words]
    if any([kill(pid) for pid in victims]):
        counts[what] += 1
        lab.fruitless += what == "machine"
        with open(lab.place / "kills.log", "a") as log:
            print(int(time.time() * 1000), what, *victims, file=log)


def check(lab, run, restorer, pinned):
    """Every durable checkpoint holds what its step says; none that was pinned is missing."""
    durable = lab.durable(run)
    steps = {c["step"] for c in durable}
    if missing := pinned - steps:
        raise SystemExit(f"kills: pinned and gone: {sorted(missing)}")
    for checkpoint in durable:
        place = lab.place / "back"
        said = subprocess.run(
            [restorer, lab.place / "home/objects", checkpoint["key"], place], capture_output=True, text=True,
        )
        if said.returncode != 0:
            raise SystemExit(f"kills: step {checkpoint['step']} is durable and cannot be restored: {said.stderr}")
        if place.read_bytes() != content(checkpoint["step"]):
            raise SystemExit(f"kills: step {checkpoint['step']} holds something else")
        place.unlink()
    return steps


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", required=True)
    arguments.add_argument("--restorer", required=True)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=None)
    arguments.add_argument("--keep", action="store_true", help="leave the data directory")
    given = arguments.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(1 << 30)
    draw, counts = random.Random(seed), Counter()
    place = Path(tempfile.mkdtemp(prefix="olkills.", dir="/tmp"))
    lab = Lab(str(Path(given.program).resolve()), place)
    tidier = threading.Thread(target=lab.tidy, daemon=True)
    try:
        project = place / "project"
        project.mkdir()
        (project / "outlast.toml").write_text(CONFIG)
        shutil.copy(HERE / "train.py", project / "train.py")
        run = lab.call("run", str(project), "-d").stdout.strip()
        lab.until("the first durable checkpoint", run, lambda: lab.durable(run) or None)
        tidier.start()
        pinned, began = set(), time.monotonic()
        while sum(counts.values()) < given.kills:
            time.sleep(draw.random() * 1.2)
            strike(lab, draw, counts)
            lab.go_on(run)
            if draw.random() < 0.2:
                newest = max((c["step"] for c in lab.durable(run)), default=None)
                if newest is not None and lab.call("pin", f"{run}@{newest}", check=False).returncode == 0:
                    pinned.add(newest)
            if time.monotonic() - began > PATIENCE * max(1, given.kills / 5):
                raise SystemExit(f"kills: only {sum(counts.values())} of {given.kills} kills found a victim")
        reached = max(c["step"] for c in lab.durable(run))
        newer = lambda: max((c["step"] for c in lab.durable(run)), default=0) > reached + 5 or None  # noqa: E731
        lab.until(f"five more steps than {reached}", run, newer)
        lab.call("stop", run)
        over = lambda: lab.json("status", run)["run"]["ended_ms"] or None  # noqa: E731
        lab.until("the end of the run", run, over)
        lab.over.set()
        tidier.join()
        lab.call("tidy", "--yes", "--grace", "0s")
        steps = check(lab, run, given.restorer, pinned)
        if "TORN" in lab.call("logs", run).stdout:
            raise SystemExit("kills: a restored checkpoint was torn")
        if not lab.json("events", "--verify")["chain_holds"]:
            raise SystemExit("kills: the journal is broken")
        lost = sum(attempt["state"] == "LOST" for attempt in lab.json("status", run)["attempts"])
        if lost > counts["machine"]:
            raise SystemExit(f"kills: {lost} attempts were lost by {counts['machine']} kills of their machine")
        gone = max(steps) - len(steps)
        if gone < given.kills // 2 or not lab.tidies["done"]:
            raise SystemExit(f"kills: {gone} checkpoints were let go by {lab.tidies['done']} tidies: it showed nothing")
        told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        print(
            f"kills: {sum(counts.values())} from seed {seed} ({told}), {lab.tidies['done']} tidies, {max(steps)} steps; "
            f"{lost} attempts lost, {lab.storms} storms answered; "
            f"all {len(steps)} durable checkpoints ({len(pinned)} pinned) came back whole"
        )
    except SystemExit:
        print(f"kills: seed {seed}", flush=True)
        raise
    finally:
        lab.end()
        if not given.keep:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
