#!/usr/bin/env python3
"""Kills the controller at the boundaries of its calls, and asks whether a machine was forgotten or rented twice.

    run.py --program outlast --fake fake-vast [--kills 100] [--seed N] [--out FILE] [--keep]

Runs are submitted all the time and rent machines of a fake vendor: real SSH servers in namespaces of their own, on
which real agents train. One answer in twenty is lost, half of those after the call had its effect. Each controller
that is started ends itself with SIGKILL at a drawn boundary: before, during or after one call to the vendor or one
commit to the database (`controller/src/failpoint.rs`); one that does not come to its boundary within seconds is killed
from outside. Some runs are destroyed on the way. Then there are no faults any more, and within one sweep nothing may
be rented that no row names; all the time no run may have two attempts that are bound, or two generations that train.
What the vendor billed is compared with what the ledger says. Leaked seconds: while a controller runs, how long an
instance is there that no row of a machine names. Needs root, sshd and namespaces: else skipped by name.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATIENCE = 240
# Until everything has ended once there are no faults any more: up to forty runs, one after the other.
SETTLES = 600
# A life without its boundary ends from outside after so long.
LIFE = 12.0
RUNS, MOST = 3, 40
PROGRAM = """i=0
from=${OUTLAST_RESUME_FROM:-}
[ -d "$from" ] && from=$(ls -d "$from"/* | tail -n 1)
[ -n "$from" ] && i=$(cat "$from")
while [ "$i" -lt 30 ]; do
  i=$((i + 1))
  echo "step=$i loss=0.$i"
  if [ $((i % 10)) = 0 ]; then
    echo "$i" >"$OUTLAST_CHECKPOINT_DIR/.part"
    mv "$OUTLAST_CHECKPOINT_DIR/.part" "$OUTLAST_CHECKPOINT_DIR/step-$i.txt"
  fi
  sleep 0.1
done
"""
CONFIG = """[run]
command = ["sh", "program.sh"]
provider = "vast"
[environment]
kind = "none"
[checkpoints]
quiet = "1s"
[machine]
reliability = 0.5
disk = "20GB"
[budget]
max_usd = 20
max_usd_per_hour = 5
"""
CALLS = {"prepare": 4, "create": 22, "destroy": 18, "list": 8, "get": 8, "terms": 6, "route": 6, "commit": 28}
DEEPEST = {"prepare": 1, "create": 1, "destroy": 1, "list": 2, "get": 2, "terms": 2, "route": 2, "commit": 30}


class Lab:
    def __init__(self, given, place, draw):
        self.program, self.place, self.draw = str(Path(given.program).resolve()), place, draw
        self.home, self.record = place / "home", place / "boundaries"
        self.machines = place / "vast"
        self.machines.mkdir()
        self.fake = subprocess.Popen(
            [given.fake, "--offers", "60", "--speed", "1", "--until-stdin-closes", "--machines", self.machines,
             "--boot", HERE.parent / "vast" / "machine.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.url = json.loads(self.fake.stdout.readline())["url"]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("OUTLAST_", "VAST_"))}
        self.env |= {"OUTLAST_HOME": str(self.home), "VAST_URL": self.url, "VAST_API_KEY": "test-key"}
        # The vendor's intervals would let one machine be made in five seconds.
        self.env["VAST_PACE_PERCENT"] = "2"
        self.control("options", {"limits": False})
        self.over, self.wrong = threading.Event(), []
        self.unnamed, self.leaks, self.counted = {}, [], 0.0
        self.submitted, self.outside = [], 0

    # --- the two sides ---------------------------------------------------------

    def control(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with DIRECT.open(urllib.request.Request(f"{self.url}/control/{path}", data=data), timeout=PATIENCE) as answer:
            return json.load(answer)

    def call(self, *args, armed=True, patience=PATIENCE):
        env = dict(self.env)
        if armed:
            env |= {"OUTLAST_FAILPOINT": self.boundary(), "OUTLAST_FAILPOINT_LOG": str(self.record)}
        return subprocess.run(
            [self.program, *args], capture_output=True, text=True, env=env, timeout=patience, stdin=subprocess.DEVNULL
        )

    def boundary(self):
        call = self.draw.choices(list(CALLS), list(CALLS.values()))[0]
        phase = self.draw.choice(["before", f"during:{self.draw.choice([0, 1, 3, 10, 30])}", "after"])
        return f"{call}/{phase}/{self.draw.randint(1, DEEPEST[call])}"

    def met(self):
        return self.record.read_text().splitlines() if self.record.exists() else []

    def controller(self):
        """The controller that holds the data directory, if one does."""
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"controller-serve" in words and str(self.home).encode() in words:
                    return int(entry)
        return None

    def rows(self, kind):
        with sqlite3.connect(f"file:{self.home}/outlast.db?mode=ro", uri=True, timeout=10) as db:
            return [json.loads(body) for (body,) in db.execute("SELECT body FROM rows WHERE kind = ?", (kind,))]

    # --- what is watched all the time ------------------------------------------

    def watch(self):
        while not self.over.is_set():
            try:
                self.look()
            except (OSError, sqlite3.Error):
                pass
            self.over.wait(0.25)

    def look(self):
        now = time.monotonic()
        runs = self.controller() is not None
        listed = {str(one["id"]) for one in self.control("state")["instances"]}
        machines = self.rows("machine") if (self.home / "outlast.db").exists() else []
        named = {m["instance"] for m in machines if m["instance"] and m["status"]["state"] != "destroyed"}
        # Time counts only while a controller runs.
        step = min(now - self.counted, 1.0) if runs else 0.0
        self.counted = now
        for one in listed - named:
            self.unnamed[one] = self.unnamed.get(one, 0.0) + step
        for one in [one for one in self.unnamed if one in named or one not in listed]:
            self.leaks.append(self.unnamed.pop(one))
        self.judge_generations()

    def judge_generations(self):
        bound = collections.Counter(
            a["run"] for a in self.rows("attempt")
            if a["status"]["state"] in ("assigned", "preparing", "running", "stopping")
        )
        for run, live in bound.items():
            if live > 1:
                self.wrong.append(f"run {run} has {live} attempts that are bound")
        training = collections.defaultdict(set)
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                if b"program.sh" not in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                    continue
                env = dict(w.split(b"=", 1) for w in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") if b"=" in w)
            except OSError:
                continue
            if env.get(b"OUTLAST_RUN_ID", b"").decode() in {one["id"] for one in self.known}:
                training[env[b"OUTLAST_RUN_ID"].decode()].add(env.get(b"OUTLAST_GENERATION"))
        for run, generations in training.items():
            if len(generations) > 1:
                self.wrong.append(f"run {run} trains in generations {sorted(generations)} at once")

    @property
    def known(self):
        return self.rows("run")

    # --- what is done ----------------------------------------------------------

    def live(self):
        final = ("succeeded", "failed", "cancelled", "budget-stopped")
        return [r["name"] for r in self.rows("run") if r["status"]["state"] not in final] if (self.home / "outlast.db").exists() else []

    def stuck(self):
        """Runs that wait, as they must, until it is certain that their order left no machine: five minutes."""
        open_rows = [m for m in self.rows("machine") if m["status"]["state"] in ("calling", "unknown")]
        names = {r["id"]: r["name"] for r in self.known}
        return {names.get(m["run"]) for m in open_rows}

    def keep_busy(self, project):
        live = self.live()
        if len(set(live) - self.stuck()) < RUNS and len(live) < MOST:
            said = self.call("run", str(project), "--detach", "--yes")
            if said.returncode == 0:
                self.submitted.append(said.stdout.strip())
        elif self.draw.random() < 0.12:
            self.call("destroy", self.draw.choice(live), "--yes")

    def end(self):
        self.over.set()
        if pid := self.controller():
            kill(pid)
        self.fake.stdin.close()
        try:
            self.fake.wait(30)
        except subprocess.TimeoutExpired:
            self.fake.kill()
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    if str(self.place).encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                        os.kill(int(entry), signal.SIGKILL)
                except OSError:
                    pass


def kill(pid):
    """Whether it was there: one may end at its boundary a moment before."""
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def give_agent(lab):
    """The agent that is brought to machines: the program itself, made smaller."""
    version = subprocess.run([lab.program, "version", "--json"], capture_output=True, text=True, check=True, env=lab.env)
    target = f"{os.uname().machine}-unknown-linux-gnu"
    place = lab.home / "agents" / json.loads(version.stdout)["version"] / target
    place.mkdir(parents=True)
    if subprocess.run(["strip", "-o", place / "outlast-agent", lab.program], capture_output=True).returncode != 0:
        shutil.copy(lab.program, place / "outlast-agent")


def share(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def settle(lab):
    """No faults any more: everything ends, and nothing may be left."""
    lab.control("faults", {"clear": True})
    if pid := lab.controller():
        kill(pid)
    began = time.monotonic()
    lab.call("controller", "start", armed=False)
    ends = began + SETTLES
    while time.monotonic() < ends:
        for run in lab.live():
            waits = [r for r in lab.rows("run") if r["name"] == run and r["status"]["state"] == "waiting"]
            if waits:
                lab.call("resume", run, "--detach", armed=False)
            if run in lab.stuck() and time.monotonic() - began > 20:
                lab.call("destroy", run, "--yes", armed=False)
        left = lab.control("state")["instances"]
        # A row without an instance stays open for five minutes: one might turn up.
        over = ("destroyed", "rejected", "abandoned")
        open_rows = [m for m in lab.rows("machine") if m["status"]["state"] not in over and m["instance"]]
        if not left and not lab.live() and not open_rows:
            return time.monotonic() - began
        time.sleep(0.3)
    raise SystemExit(f"boundaries: after {SETTLES} s there is still: {[i['id'] for i in left]}, runs {lab.live()}, {open_rows}")


def report(lab, given, seed, took):
    state = lab.control("state")
    made = state["ended"]
    labels = collections.Counter(one["label"] for one in made)
    if twice := [label for label, n in labels.items() if n > 1]:
        raise SystemExit(f"boundaries: machines made twice under one label: {twice}")
    rows = lab.rows("machine")
    named = {m["instance"] for m in rows if m["instance"]}
    orphans = [one["id"] for one in made if str(one["id"]) not in named]
    billed = sum(one["cost"]["total"] for one in made)
    ledger = sum(run["cost_usd"] for run in json.loads(lab.call("cost", "--json", armed=False).stdout)["runs"])
    ends = collections.Counter(r["status"]["state"] for r in lab.rows("run"))
    if lab.wrong:
        raise SystemExit("boundaries: " + "; ".join(sorted(set(lab.wrong))[:5]))
    if not json.loads(lab.call("events", "--verify", "--json", armed=False).stdout)["chain_holds"]:
        raise SystemExit("boundaries: the journal is broken")
    met = collections.Counter(lab.met())
    calls = collections.Counter(line.split()[0] for line in lab.met())
    if ends["succeeded"] == 0 or calls["create"] == 0 or calls["destroy"] == 0 or calls["commit"] == 0:
        raise SystemExit(f"boundaries: it showed nothing: {dict(ends)}, kills {dict(met)}")
    numbers = {
        "seed": seed, "kills": sum(met.values()) + lab.outside, "at_boundaries": sum(met.values()),
        "from_outside": lab.outside, "boundaries": dict(sorted(met.items())), "runs": dict(ends),
        "instances": len(made), "answers_lost": state["faults"]["fired"], "never_named": len(orphans),
        "unnamed_s": {"n": len(lab.leaks), "p50": share(lab.leaks, 0.5), "p99": share(lab.leaks, 0.99),
                      "max": max(lab.leaks, default=0.0)},
        "billed_usd": billed, "ledger_usd": ledger, "clean_after_s": took,
    }
    if given.out:
        Path(given.out).write_text(json.dumps(numbers, indent=1))
    told = ", ".join(f"{n} {what}" for what, n in sorted(calls.items()))
    print(
        f"boundaries: {numbers['kills']} kills from seed {seed} ({told}; {lab.outside} from outside), "
        f"{len(made)} machines for {sum(ends.values())} runs, {state['faults']['fired']} answers lost; none left, none twice; "
        f"unnamed p50 {numbers['unnamed_s']['p50']:.1f} s, p99 {numbers['unnamed_s']['p99']:.1f} s; "
        f"billed ${billed:.4f}, ledger ${ledger:.4f}"
    )
    if numbers["unnamed_s"]["p99"] > 120:
        raise SystemExit("boundaries: a machine was unknown for more than two minutes")


def able():
    tools = ["ssh-keygen", "unshare", "nsenter", "ip"]
    return os.geteuid() == 0 and Path("/usr/sbin/sshd").exists() and all(shutil.which(tool) for tool in tools)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", required=True)
    arguments.add_argument("--fake", required=True)
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=None)
    arguments.add_argument("--out", default=None)
    arguments.add_argument("--keep", action="store_true", help="leave the data directory")
    given = arguments.parse_args()
    if not able():
        print("boundaries: skipped: machines need root, sshd and namespaces")
        return
    seed = given.seed if given.seed is not None else random.randrange(1 << 30)
    place = Path(tempfile.mkdtemp(prefix="olbound.", dir="/tmp"))
    lab = Lab(given, place, random.Random(seed))
    watcher = threading.Thread(target=lab.watch, daemon=True)
    try:
        give_agent(lab)
        lab.control("faults", {"seed": seed, "add": [
            {"on": ["*"], "probability": 0.025, "fault": {"kind": "lost_reply", "effect": True}},
            {"on": ["*"], "probability": 0.025, "fault": {"kind": "lost_reply", "effect": False}},
        ]})
        project = place / "project"
        project.mkdir()
        (project / "outlast.toml").write_text(CONFIG)
        (project / "program.sh").write_text(PROGRAM)
        lab.call("controller", "start", armed=False)
        watcher.start()
        began = time.monotonic()
        while len(lab.met()) + lab.outside < given.kills:
            if lab.controller() is None:
                lab.call("controller", "start")
            life = time.monotonic()
            while (pid := lab.controller()) is not None:
                lab.keep_busy(project)
                if time.monotonic() - life > LIFE:
                    lab.outside += kill(pid)
                    break
                time.sleep(0.1)
            if time.monotonic() - began > PATIENCE * max(1, given.kills / 10):
                raise SystemExit(f"boundaries: only {len(lab.met())} of {given.kills} kills")
        took = settle(lab)
        lab.over.set()
        watcher.join()
        report(lab, given, seed, took)
    except BaseException:
        print(f"boundaries: seed {seed}", flush=True)
        raise
    finally:
        lab.end()
        if not given.keep:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
