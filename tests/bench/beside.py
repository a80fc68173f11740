#!/usr/bin/env python3
"""How much a training is slowed by publishing beside it, on one processor that both want all of.

    beside.py [--program target/debug/outlast] [--megabytes 192] [--saves 4] [--compete]

The training computes on one thread without a pause and says how long each step took; its agent is bound to the same
processor, the controller and its store to the others. The steps while the agent works on a checkpoint are compared
with the steps between. That is the worst there is: a training that leaves any processor idle gives publishing that
one. `--compete` takes back, many times a second, what the agent gives way by: what the figure would be without it.
Linux, and root for `--compete`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TICK = os.sysconf("SC_CLK_TCK")
TRAIN = '''
import hashlib, os, time
where, megabytes, saves = os.environ["OUTLAST_CHECKPOINT_DIR"], int(os.environ["MEGABYTES"]), int(os.environ["SAVES"])
os.sched_setaffinity(0, {int(os.environ["CORE"])})
log = open(os.environ["STEPS"], "w", buffering=1)
block = bytes(range(256)) * 4096

def step():
    for _ in range(8):
        hashlib.sha256(block).digest()

def steps(seconds, what):
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        step()
        log.write(f"{what} {now} {time.monotonic()}\\n")

steps(5, "warm")
for save in range(1, saves + 1):
    path = f"{where}/step-{save}.bin"
    with open(path + ".tmp", "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)
    log.write(f"saved {time.monotonic()} {save}\\n")
    steps(float(os.environ["BETWEEN"]), "run")
'''


def processes(home, role):
    """Those of this installation that stand in a role."""
    mark = f"OUTLAST_HOME={home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(word.strip("_").split("-")[0] == role for word in words[1:4]) and (
                        any(str(home) in word for word in words) or mark in (entry / "environ").read_bytes()):
                    yield int(entry.name)
            except OSError:
                continue


def tasks(pid):
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


def used(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


class Watch(threading.Thread):
    """Samples what the agent uses, keeps it on its processor, and takes back its giving way if asked to."""

    def __init__(self, home, core, compete):
        super().__init__(daemon=True)
        self.home, self.core, self.compete, self.over = home, core, compete, False
        self.samples, self.stored = [], {}

    def run(self):
        agent = None
        while not self.over:
            if agent is None or not Path(f"/proc/{agent}").exists():
                agent = next(processes(self.home, "agent"), None)
            for task in tasks(agent) if agent else []:
                try:
                    os.sched_setaffinity(task, {self.core})
                    if self.compete:
                        os.setpriority(os.PRIO_PROCESS, task, 0)
                except OSError:
                    pass
            if agent and self.compete:
                try:
                    Path(f"/proc/{agent}/autogroup").write_text("0")
                except OSError:
                    pass
            if agent:
                self.samples.append((time.monotonic(), used(agent)))
            for manifest in self.home.glob("objects/*/g*/m*"):
                if manifest.parent.parent.name != "source":
                    self.stored.setdefault(manifest, time.monotonic())
            time.sleep(0.02 if self.compete else 0.1)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--program", default=ROOT / "target/debug/outlast", type=Path)
    parse.add_argument("--megabytes", default=192, type=int)
    parse.add_argument("--saves", default=4, type=int)
    parse.add_argument("--between", default=60, type=float, help="seconds of steps after each save")
    parse.add_argument("--compete", action="store_true")
    args = parse.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two processors are needed: one for the training, one for the controller")
    work = Path(tempfile.mkdtemp(prefix="beside-"))
    home, project, log = work / "home", work / "project", work / "steps"
    project.mkdir()
    (project / "train.py").write_text(TRAIN)
    (project / "outlast.toml").write_text(
        '[run]\ncommand = ["python3", "train.py"]\n[environment]\nkind = "none"\n[checkpoints]\nkeep_local = 1\n'
        f'[run.env]\nMEGABYTES = "{args.megabytes}"\nSAVES = "{args.saves}"\nCORE = "{cores[0]}"\n'
        f'STEPS = "{log}"\nBETWEEN = "{args.between}"\n')
    env = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
    env |= {"OUTLAST_HOME": str(home), "XDG_CONFIG_HOME": str(work / "config")}
    watch = Watch(home, cores[0], args.compete)
    watch.start()

    def others():
        os.sched_setaffinity(0, set(cores[1:]))

    try:
        run = subprocess.run([args.program, "run", str(project)], env=env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=others)
        if run.returncode:
            sys.exit(f"the run failed: {run.stderr}")
        watch.over = True
        report(log, watch.samples, sorted(watch.stored.values()), args)
    finally:
        watch.over = True
        subprocess.run([args.program, "controller", "stop"], env=env, capture_output=True, timeout=60)
        for role in ("controller", "guard", "agent", "keeper"):
            for pid in processes(home, role):
                os.kill(pid, 15)
        shutil.rmtree(work, ignore_errors=True)


def report(log, samples, stored, args):
    saves, steps = [], []
    for line in log.read_text().splitlines():
        what, first, second = line.split()
        if what == "saved":
            saves.append(float(first))
        elif what == "run":
            steps.append((float(first), float(second) - float(first)))
    # Publishing goes on from a save until its manifest is in the store.
    busy = []
    for number, begin in enumerate(saves):
        end = saves[number + 1] if number + 1 < len(saves) else steps[-1][0]
        done = next((at for at in stored if begin <= at < end), None)
        if done is None:
            sys.exit(f"save {number + 1} was not stored before the next: raise --between")
        used_by = [cpu for at, cpu in samples if begin <= at <= done]
        busy.append((begin, done, used_by[-1] - used_by[0] if used_by else 0.0))
    within = [took for at, took in steps if any(begin <= at <= done for begin, done, _ in busy)]
    quiet = [took for at, took in steps if not any(begin <= at <= done + 2 for begin, done, _ in busy)]
    if not within or not quiet:
        sys.exit(f"no steps within ({len(within)}) or none between ({len(quiet)}): raise --between or --megabytes; {busy}")
    slower = statistics.mean(within) / statistics.mean(quiet) - 1
    share = sum(done - begin for begin, done, _ in busy) / (len(saves) * args.between)
    print(json.dumps({"megabytes": args.megabytes, "saves": len(saves), "compete": args.compete,
                      "published_in_seconds": [round(done - begin, 1) for begin, done, _ in busy],
                      "agent_cpu_seconds": [round(total, 2) for _, _, total in busy],
                      "steps": [len(within), len(quiet)],
                      "step_ms": [round(1e3 * statistics.mean(quiet), 3), round(1e3 * statistics.mean(within), 3)]}))
    print(f"slowed while publishing: {100 * slower:.2f} % (target 1 %); over the whole run, of which publishing took "
          f"{100 * share:.0f} %: {100 * slower * share:.2f} %")


main()
