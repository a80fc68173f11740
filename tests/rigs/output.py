#!/usr/bin/env python3
"""Measures what output costs and how soon it is seen, on this computer, and prints one Markdown table.

    output.py [--program target/debug/outlast] [--only follow|crash|flood] [--mb 200] [--rate 100] [--lines 200]
              [--crashes 36] [--busy 0] [--gb]

follow    a program prints the time on the clock that counts since boot; `outlast logs -f` reads it: how late
crash     programs end by themselves or are killed, every third after a save of 32 MB: how long after its last
          instruction the controller's journal holds that the program has ended (`exited`, durable: read from the
          database by another process), and how long until the end of the attempt, which waits for the save
flood     a program writes --mb MB at --rate MB/s: with the controller stopped, with it gone, and with a spool quota
          that is too small; how fast the program was against `| cat > /dev/null`, how large the agent grew, whether
          the controller ever suspected the machine, and whether the gap that is told is exactly what is missing

--busy N runs N busy loops beside it. Fails where a byte is missing that no gap tells of, where the machine was suspected while the controller ran, or where
the agent grew over 40 MB. Speeds are for the reader, who knows the computer. --gb writes 6000 MB (100 MB/s for a
minute) and needs the disk for it.
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
from measure import Installation, memory, roles  # noqa: E402

AGENT_MOST = 40 * 1000 * 1000

STAMPS = """
import os, sys, time
def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)
for i in range(int(os.environ["LINES"]) + 20):
    sys.stdout.write(f"{now():.6f}\\n")
    sys.stdout.flush()
    time.sleep(0.05 + 0.037 * (i % 3))
"""

# Its last instruction but one says when that was. It ends when the rig is watching.
CRASH = """
import os, signal, time
if os.environ["SAVE"] == "1":
    path = os.path.join(os.environ["OUTLAST_CHECKPOINT_DIR"], "step-1.bin")
    with open(path + ".tmp", "wb") as file:
        file.write(os.urandom(32_000_000))
    os.rename(path + ".tmp", path)
said, how = os.environ["SAID"], os.environ["HOW"]
open(said + ".up", "w").close()
while not os.path.exists(said + ".go"):
    time.sleep(0.005)
file = os.open(said, os.O_WRONLY | os.O_CREAT)
os.write(file, f"{time.clock_gettime(time.CLOCK_BOOTTIME):.6f} ".encode())
if how == "code":
    os._exit(3)
os.kill(os.getpid(), getattr(signal, how))
"""

# One write of 64 KiB after the other, no faster than asked; says how long it took and how long one write took at most.
FLOOD = """
import json, os, sys, time
total, rate = int(os.environ["MB"]) * 1_000_000, float(os.environ["RATE"]) * 1e6
if os.environ.get("START"):
    while not os.path.exists(os.environ["START"]):
        time.sleep(0.01)
block = bytes(i * 7 % 251 for i in range(65_536))
done, slowest, waited, began = 0, 0.0, 0.0, time.monotonic()
while done < total:
    size = min(len(block), total - done)
    before = time.monotonic()
    view = memoryview(block)[:size]
    while view:
        view = view[os.write(1, view):]
    took = time.monotonic() - before
    slowest, waited, done = max(slowest, took), waited + took, done + size
    early = began + done / rate - time.monotonic()
    if early > 0.002:
        time.sleep(early)
took = time.monotonic() - began
with open(os.environ["SAID"] + ".new", "w") as file:
    json.dump({"seconds": took, "writing": waited, "slowest": slowest, "bytes": done}, file)
os.rename(os.environ["SAID"] + ".new", os.environ["SAID"])
while os.environ.get("MAY_END") and not os.path.exists(os.environ["MAY_END"]):
    time.sleep(0.02)
"""
BLOCK = bytes(i * 7 % 251 for i in range(65_536))


def project(work, name, script):
    source = work / name
    source.mkdir(exist_ok=True)
    (source / "train.py").write_text(script)
    config = '[run]\ncommand = ["python3", "train.py"]\n[environment]\nkind = "none"\n'
    (source / "outlast.toml").write_text(config)
    return source


def until(what, look, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"still not there after {seconds} s: {what}")


def submit(rig, source, name, **variables):
    options = [word for key, value in variables.items() for word in ("--set", f"run.env.{key}={value}")]
    quota = variables.get("QUOTA")
    if quota:
        options += ["--set", f"logs.spool={quota}"]
    if "HOW" in variables:
        options += ["--set", "retry.failures=0"]
    return rig.call("run", source, "--detach", "--name", name, *options)[0].strip()


def running(rig, run):
    def look():
        detail = rig.json("status", run)
        return detail["run"]["phase"] == "running" and detail
    return until(f"{run} running", look)


def follow(rig, lines):
    """Seconds from each line's writing to its arrival at somebody who follows."""
    source = project(rig.work, "stamps", STAMPS)
    run = submit(rig, source, "stamps", LINES=lines)
    child = rig.popen("logs", run, "-f", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    late = []
    for line in child.stdout:
        late.append(time.clock_gettime(time.CLOCK_BOOTTIME) - float(line))
    child.wait(60)
    # The first lines waited for the follower itself.
    return sorted(late[20:])


def crash(rig, count):
    """Seconds from each program's last instruction to the journal's `exited` and `ended`."""
    source = project(rig.work, "crash", CRASH)
    exited, ended, saved = [], [], []
    for n in range(count):
        said = rig.work / f"crash-{n}"
        how = ("code", "SIGSEGV", "SIGKILL")[n // 3 % 3]
        run = submit(rig, source, f"crash-{n}", SAID=said, HOW=how, SAVE=int(n % 3 == 2))
        until("the program", lambda: Path(f"{said}.up").exists())
        running(rig, run)
        base = sqlite3.connect(f"file:{rig.home}/outlast.db?mode=ro", uri=True)
        last = base.execute("SELECT max(seq) FROM journal").fetchone()[0]
        Path(f"{said}.go").touch()
        seen = {}
        end = time.monotonic() + 60
        while "ended" not in seen and time.monotonic() < end:
            time.sleep(0.002)
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            verbs = base.execute("SELECT verb FROM journal WHERE seq > ?", (last,)).fetchall()
            for (verb,) in verbs:
                seen.setdefault(verb, now)
        base.close()
        if not seen.keys() >= {"exited", "ended"}:
            sys.exit(f"{run}: its end is not in the journal: {seen}")
        until("the end", lambda run=run: rig.json("status", run)["run"]["ended_ms"])
        died = float(said.read_text().split()[0])
        exited.append(seen["exited"] - died)
        (saved if n % 3 == 2 else ended).append(seen["ended"] - died)
    return sorted(exited), sorted(ended), sorted(saved)


def spread(late):
    p50, p99 = statistics.median(late), late[min(len(late) - 1, int(len(late) * 0.99))]
    return f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, max {late[-1] * 1000:.0f} ms"


class Watch:
    """The largest resident size of the agent, looked at all the time."""

    def __init__(self, rig):
        self.pid = until("the agent", lambda: roles(rig.home).get("agent"))[0]
        self.most = 0

    def look(self):
        try:
            self.most = max(self.most, memory(self.pid)[0])
        except (OSError, KeyError):
            pass


def plain(rig, mb, rate):
    """The same program with the cheapest reader there is."""
    said = rig.work / "plain.json"
    env = os.environ | {"MB": str(mb), "RATE": str(rate), "SAID": str(said), "START": "", "MAY_END": ""}
    source = project(rig.work, "flood", FLOOD)
    subprocess.run(f"python3 {source}/train.py | cat > /dev/null", shell=True, check=True, env=env)
    return json.loads(said.read_text())


def controller_pid(rig):
    return json.loads((rig.home / "controller.json").read_text())["pid"]


def gaps(rig, run):
    found = []
    for event in rig.json("events", run):
        if event["verb"] == "gap":
            detail = json.loads(event["detail_json"]) if "detail_json" in event else event["detail"]
            if detail["stream"] == "stdout":
                found.append((detail["from"], detail["to"]))
    return found


def check(rig, run, size):
    """Every byte is there or told to be missing."""
    missing = gaps(rig, run)
    path = rig.home / "runs" / run / "1" / "stdout.log"
    kept, at = size, 0
    with open(path, "rb") as file:
        for start, end in [*missing, (size, size)]:
            file.seek(at)
            while at < start:
                part = file.read(min(len(BLOCK) - at % len(BLOCK), start - at))
                offset = at % len(BLOCK)
                if not part or part != BLOCK[offset:offset + len(part)]:
                    sys.exit(f"{run}: stdout differs at {at}")
                at += len(part)
            kept -= end - start
            at = end
    return missing, kept


def flood(rig, name, mb, rate, away, quota=""):
    """One flood; `away` is what happens to the controller: None, "stopped" or "killed"."""
    source = project(rig.work, "flood", FLOOD)
    said, start, may_end = (rig.work / f"{name}.{what}" for what in ("json", "start", "end"))
    run = submit(rig, source, name, MB=mb, RATE=rate, SAID=said, START=start, MAY_END=may_end, QUOTA=quota)
    running(rig, run)
    watch = Watch(rig)
    pid = controller_pid(rig)
    if away:
        os.kill(pid, signal.SIGSTOP if away == "stopped" else signal.SIGKILL)
    start.touch()

    def written():
        watch.look()
        return said.exists()
    until("the end of the flood", written, mb / rate * 10 + 60)
    if away == "stopped":
        os.kill(pid, signal.SIGCONT)
    result = json.loads(said.read_text())
    path = rig.home / "runs" / run / "1" / "stdout.log"

    def arrived():
        watch.look()
        rig.json("status")
        if path.exists() and path.stat().st_size >= result["bytes"]:
            return True
        return any(end >= result["bytes"] for _, end in gaps(rig, run))
    began = time.monotonic()
    until("all of it at the controller", arrived, 60 + mb)
    delivered = time.monotonic() - began
    may_end.touch()
    until("the end", lambda: rig.json("status", run)["run"]["ended_ms"])
    missing, kept = check(rig, run, result["bytes"])
    suspected = [e for e in rig.json("events", run) if "suspect" in e["verb"]]
    if suspected and not away:
        sys.exit(f"{name}: the machine was suspected: {suspected}")
    if watch.most > AGENT_MOST:
        sys.exit(f"{name}: the agent grew to {watch.most / 1e6:.1f} MB")
    return result, watch.most, delivered, missing, kept


def floods(rig, args):
    base = plain(rig, args.mb, args.rate)
    print(f"| {args.mb} MB at {args.rate:.0f} MB/s into `cat` | {base['seconds']:.2f} s, slowest write "
          f"{base['slowest'] * 1000:.0f} ms |", flush=True)
    for name, away, quota in (
        ("controller-runs", None, ""),
        ("controller-stopped", "stopped", ""),
        ("controller-killed", "killed", ""),
        ("spool-full", "stopped", "16MiB"),
    ):
        result, most, delivered, missing, kept = flood(rig, name, args.mb, args.rate, away, quota)
        print(f"| {name} | {result['seconds']:.2f} s ({base['seconds'] / result['seconds']:.2f} of `cat`'s speed), "
              f"slowest write {result['slowest'] * 1000:.0f} ms; agent {most / 1e6:.1f} MB; all there "
              f"{delivered:.1f} s later; {len(missing)} gaps, {kept} of {result['bytes']} bytes kept |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/outlast")
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--only", choices=["follow", "crash", "flood"], default="")
    parser.add_argument("--crashes", type=int, default=36)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--gb", action="store_true", help="6000 MB at 100 MB/s")
    args = parser.parse_args()
    if args.gb:
        args.mb, args.rate = 6000, 100
    work = Path(tempfile.mkdtemp(prefix="olo", dir="/tmp"))
    program = work / "outlast"
    shutil.copy2(args.program, program)
    rig = Installation(program.resolve(), work)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    try:
        print("| what | figure |\n|---|---|")
        if args.only in ("", "follow"):
            late = follow(rig, args.lines)
            print(f"| `logs -f` behind the program, {len(late)} lines | {spread(late)} |", flush=True)
        if args.only in ("", "crash"):
            exited, ended, saved = crash(rig, args.crashes)
            print(f"| program dead to the journal knowing it, {len(exited)} crashes | {spread(exited)} |")
            print(f"| the same to the end of the attempt, nothing to save | {spread(ended)} |")
            print(f"| the same, 32 MB saved just before | {spread(saved)} |", flush=True)
        if args.only in ("", "flood"):
            floods(rig, args)
    finally:
        for loop in busy:
            loop.kill()
            loop.wait()
        rig.end()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
