#!/usr/bin/env python3
"""Measures what the promises speak of, on this computer, and prints one Markdown table.

    measure.py [--program target/debug/outlast] [--agent STATIC_BINARY] [--count 20] [--kills 6]

Works in one temporary directory with its own OUTLAST_HOME. It only measures: whether a number is good enough is
for the reader, who knows the computer. Times are from outside, as a person or a script would see them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("controller", "guard", "agent", "keeper")


class Installation:
    def __init__(self, program, work):
        self.program, self.work, self.home = program, work, work / "home"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        self.env |= {"OUTLAST_HOME": str(self.home), "XDG_CONFIG_HOME": str(work / "config")}

    def popen(self, *arguments, **more):
        return subprocess.Popen([self.program, *map(str, arguments)], env=self.env, stdin=subprocess.DEVNULL, **more)

    def call(self, *arguments, timeout=600):
        """What it printed, the seconds it took and its peak resident bytes."""
        began = time.perf_counter()
        child = self.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise
        if child.returncode != 0:
            sys.exit(f"outlast {' '.join(map(str, arguments))} ended with {child.returncode}: {err[-2000:]}")
        return out, time.perf_counter() - began

    def json(self, *arguments):
        return json.loads(self.call(*arguments, "--json")[0])

    def peak(self, *arguments):
        """Its peak resident bytes, from the kernel's own account of that one child."""
        child = self.popen(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * 1024

    def end(self):
        for run in self.json("status", "--all"):
            if not run["ended_ms"]:
                self.popen("destroy", run["id"], "--yes", stdout=subprocess.DEVNULL).wait(60)
        end = time.monotonic() + 30
        while any(m["state"] != "DESTROYED" for m in self.json("machines", "--all")) and time.monotonic() < end:
            time.sleep(0.2)
        self.popen("controller", "stop", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(60)


def project(work, name, script, requirements=None):
    """A source tree with one Python program."""
    source = work / name
    source.mkdir()
    (source / "train.py").write_text(script)
    if requirements is not None:
        (source / "requirements.txt").write_text(requirements)
    config = f'[project]\nname = "{name}"\n\n[run]\ncommand = ["python", "train.py"]\n'
    (source / "outlast.toml").write_text(config)
    return source


def first_line(rig, source, marker, *options):
    """Seconds from the start of `outlast run` to the first line of its program."""
    began = time.perf_counter()
    child = rig.popen("run", source, *options, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    took = None
    for line in child.stdout:
        if took is None and line.startswith(marker):
            took = time.perf_counter() - began
    if child.wait(120) != 0 or took is None:
        sys.exit(f"a run in {source} ended with {child.returncode}, its first line came after {took}")
    return took, time.perf_counter() - began


def memory(pid):
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {row.split(":")[0]: int(row.split()[1]) * 1024 for row in rows if row.endswith(" kB")}
    return sizes["Rss"], sizes["Anonymous"]


def roles(home):
    """The processes of this installation, by what they are."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if entry.name.isdigit() and any(word.startswith(str(home)) for word in words):
            for role in ROLES:
                if any(word.strip("_") == role for word in words[1:4]):
                    found.setdefault(role, []).append(int(entry.name))
                    break
    return found


def idle_memory(rig):
    """Of each process, ten seconds after a program began that does nothing."""
    source = project(rig.work, "idle", "import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    rig.call("run", source, "--detach", "--name", "idle")
    end = time.monotonic() + 60
    while "keeper" not in roles(rig.home) and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(10)
    sizes = {role: memory(pids[0]) for role, pids in roles(rig.home).items()}
    run = next(run for run in rig.json("status", "--all") if run["name"].startswith("idle"))
    rig.call("destroy", run["id"], "--yes")
    return sizes


def recoveries(rig, kills):
    """For each kill: milliseconds to the first new step, without the restoring, and the parts of that time."""
    source = rig.work / "digits"
    shutil.copytree(ROOT / "examples/digits", source, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    found = []
    while len(found) < kills:
        steps = rig.work / f"steps{len(found)}"
        arguments = ["run", source, "--json", "--name", "digits", "--chaos", "machine=2,within=8s"]
        for name, value in (("STEPS", 300), ("STEP_MS", 60), ("STEP_FILE", steps)):
            arguments += ["--set", f"run.env.DIGITS_{name}={value}"]
        child = rig.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        seen = watch(child, steps)
        run = json.loads(child.stdout.read())["id"]
        found += recovery(rig, run, seen)
    return found[:kills]


def watch(child, steps):
    """When each generation's first step was written, by the clock that the journal uses."""
    seen, offset, rest = {}, 0, b""
    while child.poll() is None:
        if steps.exists():
            with open(steps, "rb") as file:
                file.seek(offset)
                fresh = file.read()
            now = time.time() * 1000
            offset += len(fresh)
            *lines, rest = (rest + fresh).split(b"\n")
            for line in lines:
                seen.setdefault(int(line.split()[0]), now)
        time.sleep(0.002)
    if child.returncode != 0:
        sys.exit(f"a tormented run ended with {child.returncode}")
    return seen


def recovery(rig, run, seen):
    detail = rig.json("status", run)
    own = {thing["id"] for thing in detail["attempts"] + detail["machines"]}
    events = [event for event in rig.json("events") if event["object"] in own]
    at = lambda verb, thing: next((e["at_ms"] for e in events if e["verb"] == verb and e["object"] == thing), None)
    attempts = sorted(detail["attempts"], key=lambda attempt: attempt["number"])
    found = []
    for before, after in zip(attempts, attempts[1:]):
        killed = at("sabotage", before["machine_id"])
        # One that was killed again before its first step tells nothing.
        if killed and after["generation"] in seen:
            found.append({
                "whole": seen[after["generation"]] - killed - after["restore_ms"],
                "noticed": at("lost", before["machine_id"]) - killed,
                "bound": at("bound", after["id"]) - killed,
                "started": at("started", after["id"]) - killed - after["restore_ms"],
                "restore": after["restore_ms"],
            })
    return found


def p50(values):
    return statistics.median(values)


def spread(values, unit, scale=1.0, digits=0):
    low, middle, high = min(values) * scale, p50(values) * scale, max(values) * scale
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f}, n = {len(values)})"


def mib(size):
    return f"{size / 2**20:.1f} MiB"


def measure(rig, options):
    rows = []
    warm = project(rig.work, "warm", "print('first', flush=True)\n", "# nothing beside Python\n")
    cold, _ = first_line(rig, warm, "first", "--name", "cold")
    rows.append(("cold: submit → first log line (controller started, environment made)", f"{cold:.2f} s"))
    times = [first_line(rig, warm, "first", "--name", "warm") for _ in range(options.count)]
    rows.append(("warm: submit → first log line", spread([t for t, _ in times], "ms", 1000)))
    rows.append(("warm: submit → all over, machine gone, results fetched", spread([t for _, t in times], "ms", 1000)))
    status = [rig.call("status", "--all")[1] for _ in range(options.count)]
    rows.append((f"`outlast status`, {options.count + 1} runs", spread(status, "ms", 1000, 1)))
    rows.append(("`outlast status`, peak RSS", mib(max(rig.peak("status", "--all") for _ in range(3)))))
    for role, (rss, anonymous) in sorted(idle_memory(rig).items()):
        rows.append((f"{role}, idle", f"RSS {mib(rss)}, of it anonymous {mib(anonymous)}"))
    found = recoveries(rig, options.kills)
    if found:
        words = {
            "whole": "power cut → first new step, less the restoring",
            "noticed": "… of it: until the loss was known",
            "bound": "… until the next attempt was bound",
            "started": "… until its program was started",
            "restore": "the restoring (0 where nothing was durable)",
        }
        rows += [(words[part], spread([one[part] for one in found], "ms")) for part in words]
    rows.append((f"size of `{rig.program.name}`", mib(rig.program.stat().st_size)))
    if options.agent:
        rows.append(("size of the static agent", mib(options.agent.stat().st_size)))
    return rows


def main():
    parser = argparse.ArgumentParser(description="Measures Outlast on this computer.")
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/outlast")
    parser.add_argument("--agent", type=Path)
    parser.add_argument("--label", help="what kind of build it is [default: the name of its folder]")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6)
    options = parser.parse_args()
    options.program = options.program.resolve()
    # Short, because sockets are made below it.
    work = Path(tempfile.mkdtemp(prefix="measure-"))
    rig = Installation(options.program, work)
    try:
        rows = measure(rig, options)
    finally:
        rig.end()
        shutil.rmtree(work, ignore_errors=True)
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    print(f"{os.cpu_count()} × {model}, Linux {os.uname().release}, `{options.label or rig.program.parent.name}` build\n")
    print("| what | measured |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
