#!/usr/bin/env python3
"""What Outlast costs on a machine where nothing happens, beside other things that stay resident, in one table.

    agent_idle.py --program target/debug/outlast --agent STATIC_OUTLAST_AGENT
                  [--supervisord PYTHON_OR_PROGRAM] [--node-exporter PROGRAM] [--seconds 60]

A controller of `--program` makes a machine of this computer whose first-boot script runs the static agent; on it a
program sleeps. Guard, keeper and agent, supervisord with one sleeping program, node-exporter without anybody who
asks it, and a shell loop are then watched for the same seconds. Processor time is utime + stime of
/proc/PID/stat with the children that ended meanwhile, memory is /proc/PID/smaps_rollup at the end; what a process
supervises is not counted.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
SLEEPER = ["sleep", "100000"]


def processor(pid):
    """Seconds used, and voluntary sleeps ended: how often it was woken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        switches += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    children = (int(fields[13]) + int(fields[14])) / TICK
    return (int(fields[11]) + int(fields[12])) / TICK + children, switches


def memory(pid):
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return {row.split(":")[0]: int(row.split()[1]) * 1024 for row in rows if row.endswith(" kB")}


def wait(what, look, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"never came: {what}")


class Outlast:
    """A whole installation whose machines run the static agent."""

    def __init__(self, program, agent, work):
        self.home = work / "home"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        self.env |= {"OUTLAST_HOME": str(self.home), "XDG_CONFIG_HOME": str(work / "config")}
        self.program = program
        source = work / "idle"
        source.mkdir()
        (source / "outlast.toml").write_text(f"[run]\ncommand = {json.dumps(SLEEPER)}\n[environment]\nkind = \"none\"\n")
        self.call("run", str(source), "--detach", "--name", "idle")
        machine = wait("a machine", lambda: next((p for p in self.home.glob("machines/*") if p.name[0] != "."), None))
        wait("a keeper", lambda: self.roles(machine).get("keeper"))
        # Its guard, agent and keepers are those of the static file from now on: what an upgrade does is done here
        # for the guard as well. The run begins anew on another machine where that takes its keeper.
        self.exchange(machine, agent)
        self.machine = machine

    def call(self, *words):
        subprocess.run([self.program, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True, timeout=120)

    def roles(self, machine):
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if entry.name.isdigit() and len(words) > 3 and words[3].startswith(str(machine)):
                found[words[1]] = int(entry.name)
        return found

    def exchange(self, machine, agent):
        """The static file instead of the program, for all three."""
        roles = self.roles(machine)
        line = ["guard", "--state", str(machine)]
        environ = dict(pair.split("=", 1) for pair in
                       Path(f"/proc/{roles['guard']}/environ").read_text().split("\0") if "=" in pair)
        os.kill(roles["guard"], 9)
        wait("the guard's end", lambda: "guard" not in self.roles(machine))
        log = open(machine / "guard-again.log", "ab")
        self.guard = subprocess.Popen([agent, *line], env=environ, cwd=machine, stdin=subprocess.DEVNULL, stdout=log,
                                      stderr=log, start_new_session=True)
        is_static = lambda role: (pid := self.roles(machine).get(role)) and \
            os.readlink(f"/proc/{pid}/exe") == str(agent) and pid
        wait("the static agent", lambda: is_static("agent"))
        # A keeper lives as long as its program: a second attempt gets one of the static file.
        keeper = roles["keeper"]
        child = int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])
        time.sleep(3)
        os.kill(child, 9)
        wait("a keeper of the static file", lambda: is_static("keeper"), 90)

    def pids(self):
        roles = self.roles(self.machine)
        return {f"outlast {role}": roles[role] for role in ("guard", "keeper", "agent")}

    def end(self):
        for words in (("destroy", "idle", "--yes"), ("controller", "stop")):
            subprocess.run([self.program, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=120, check=False)
        if hasattr(self, "guard"):
            self.guard.kill()
            self.guard.wait()


def others(options, work):
    started = {}
    run = lambda *words: subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL, cwd=work, start_new_session=True)
    if options.supervisord:
        conf = work / "supervisord.conf"
        conf.write_text(f"[supervisord]\nnodaemon=true\nuser=root\nlogfile={work}/supervisord.log\n"
                        f"pidfile={work}/supervisord.pid\n[program:idle]\ncommand={' '.join(SLEEPER)}\n")
        started["supervisord (Debian)"] = run(*options.supervisord.split(), "-c", str(conf))
    if options.node_exporter:
        started["prometheus-node-exporter (Debian)"] = run(options.node_exporter, "--web.listen-address=127.0.0.1:0")
    started["`while sleep 1; do :; done`"] = run("/bin/sh", "-c", "while sleep 1; do :; done")
    return started


def main():
    parser = argparse.ArgumentParser(description="What stays resident costs, side by side.")
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--agent", type=Path, required=True)
    parser.add_argument("--supervisord")
    parser.add_argument("--node-exporter")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="idle-", dir="/tmp"))
    installed, started = None, {}
    try:
        installed = Outlast.__new__(Outlast)
        installed.__init__(options.program.resolve(), options.agent.resolve(), work)
        started = others(options, work)
        time.sleep(15)
        pids = installed.pids() | {name: child.pid for name, child in started.items()}
        before = {name: processor(pid) for name, pid in pids.items()}
        began = time.monotonic()
        time.sleep(options.seconds)
        took = time.monotonic() - began
        after = {name: processor(pid) for name, pid in pids.items()}
        sizes = {name: memory(pid) for name, pid in pids.items()}
    finally:
        for child in started.values():
            os.killpg(child.pid, 9)
            child.wait()
        if installed and hasattr(installed, "env"):
            installed.end()
        shutil.rmtree(work, ignore_errors=True)
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    print(f"{os.cpu_count()} × {model}, Linux {os.uname().release}, {took:.0f} s\n")
    print("| process | resident, MiB | of it anonymous, MiB | % of a core | wake-ups a second |\n|---|---|---|---|---|")
    rows, total = [], [0.0] * 4
    for name in pids:
        row = [sizes[name]["Rss"] / 2**20, sizes[name]["Anonymous"] / 2**20,
               (after[name][0] - before[name][0]) / took * 100, (after[name][1] - before[name][1]) / took]
        rows.append((name, row))
        if name.startswith("outlast"):
            total = [a + b for a, b in zip(total, row)]
    rows.insert(3, ("outlast, the three together", total))
    for name, (rss, anonymous, share, wakes) in rows:
        print(f"| {name} | {rss:.1f} | {anonymous:.1f} | {share:.2f} | {wakes:.1f} |")


if __name__ == "__main__":
    main()
