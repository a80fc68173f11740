#!/usr/bin/env python3
"""Whole virtual machines: what only a real kernel with systemd, cgroup v2 and a wall clock of its own can show.

Each case is a run whose machine is a Debian guest under software emulation (about half a minute to boot); the guest's
agent is started by its systemd unit and joins the controller of this computer. The program itself, root in its guest,
brings the fault about. Every claim is checked from outside, through the program `outlast`.

  run.py --outlast FILE --agent FILE [--image DIR] [CASE ...]

Prints one line a case and `N passed, N failed`.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

RIG = pathlib.Path(__file__).resolve().parent
ROOT = RIG.parents[2]
UNIT = ROOT / "packaging" / "systemd" / "outlast-agent.service"
PATIENCE = 900

# Saves its step every ten steps, renamed into place, and goes on from what it is given.
TRAIN = r'''
import json, os, subprocess, sys, time
where = os.environ["OUTLAST_CHECKPOINT_DIR"]
resume = os.environ.get("OUTLAST_RESUME_FROM", "")
step = json.load(open(resume))["step"] if resume else 0
first = not resume
print(f"resumed={step}", flush=True)
def sh(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("did", " ".join(words), "->", done.returncode, done.stdout.strip(), flush=True)
    return done.returncode
def must(*words):
    # A fault that cannot be brought about makes a case that proves nothing.
    if sh(*words):
        print("the fault could not be made", flush=True)
        os._exit(99)
def save():
    path = os.path.join(where, f"step-{step:06d}.json")
    with open(path + ".tmp", "w") as file:
        json.dump({"step": step, "fill": "x" * int(os.environ.get("FILL", "200000"))}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)
saved = [0]
def go(until, pause=0.2):
    global step
    while step < until:
        time.sleep(pause)
        step += 1
        print(json.dumps({"step": step, "loss": 1.0 / step}), flush=True)
        if step % 10 == 0:
            try:
                save()
                saved.append(step)
            except OSError as error:
                print("save failed:", error, flush=True)
'''

CASES = {
    # The limit's own cgroup kills the group: certain, and said so.
    "oom": {
        "toml": '[limits]\nmemory = "128MiB"\n[retry]\nfailures = 0\n',
        "code": "go(20)\nheld = [bytearray(1 << 20) for _ in range(400)]\nfor part in held: part[::4096] = b'x' * 256\ngo(30)\n",
        "exit": 137,
    },
    # A new boot is a new boot: nothing of the old one is taken for alive, and the work goes on from its checkpoint.
    "reboot": {
        "code": "go(20)\ntime.sleep(12)\nif first:\n    sh('systemctl', 'reboot')\n    time.sleep(600)\ngo(40)\n",
        "exit": 0,
        "attempts": 2,
    },
    # Power is cut inside the guest without a word.
    "crash": {
        "code": "go(20)\ntime.sleep(12)\nif first:\n    open('/proc/sys/kernel/sysrq', 'w').write('1')\n    open('/proc/sysrq-trigger', 'w').write('b')\n    time.sleep(600)\ngo(40)\n",
        "exit": 0,
        "attempts": 2,
    },
    "clock": {
        "code": "go(10)\nmust('date', '-s', '+2 hours')\ngo(40)\nmust('date', '-s', '-3 days')\ngo(70)\nmust('date', '-s', '2030-01-01')\ngo(100)\n",
        "exit": 0,
        "attempts": 1,
    },
    "netem": {
        "code": "go(10)\nmust('sh', '-c', 'tc qdisc add dev $(ls /sys/class/net | grep -v lo | head -n 1) root netem delay 500ms 200ms loss 10%')\ngo(60, 1.0)\n",
        "toml": '[run.env]\nFILL = "2000"\n',
        "exit": 0,
        "attempts": 1,
    },
    # The disk under the checkpoints drops and fails writes for a while: nothing rotten becomes the resume point.
    "flakey": {
        "code": r'''
if first:
    must('sh', '-c', f"""set -e
modprobe dm-flakey; truncate -s 64M /var/tmp/disk.img; dev=$(losetup -f --show /var/tmp/disk.img)
echo 0 131072 flakey $dev 0 600 0 | dmsetup create shaky
mkfs.ext4 -q /dev/mapper/shaky; mount /dev/mapper/shaky {where}""")
    go(40)
    must('sh', '-c', """set -e
dev=$(losetup -j /var/tmp/disk.img | cut -d: -f1)
dmsetup suspend --nolockfs shaky; echo 0 131072 flakey $dev 0 0 600 1 error_writes | dmsetup load shaky; dmsetup resume shaky""")
    go(80)
    if saved[-1] >= 80:
        os._exit(98)
    must('sh', '-c', """set -e
dev=$(losetup -j /var/tmp/disk.img | cut -d: -f1)
dmsetup suspend --nolockfs shaky; echo 0 131072 linear $dev 0 | dmsetup load shaky; dmsetup resume shaky""")
    time.sleep(5)
    open('/proc/sysrq-trigger', 'w').write('b')
    time.sleep(600)
go(100)
''',
        "exit": 0,
        "attempts": 2,
        "resume_at_most": 40,
    },
}


class Rig:
    def __init__(self, args, work: pathlib.Path):
        self.outlast, self.work = args.outlast, work
        self.env = dict(os.environ)
        self.env.update(
            OUTLAST_HOME=str(work / "home"),
            OUTLAST_LOCAL_WRAP=f"{sys.executable} {RIG / 'machine.py'} {args.image.resolve()} {args.agent} {UNIT}",
        )

    def ask(self, *words, timeout=PATIENCE):
        return subprocess.run(
            [self.outlast, *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=timeout, stdin=subprocess.DEVNULL,
        )

    def json(self, *words):
        done = self.ask(*words, "--json")
        return json.loads(done.stdout) if done.stdout.strip() else {}


def project(work: pathlib.Path, name: str, case: dict) -> pathlib.Path:
    tree = work / name
    tree.mkdir()
    (tree / "train.py").write_text(TRAIN + case["code"] + "\nprint('done', flush=True)\n")
    head = f'[run]\ncommand = ["python3", "train.py"]\nname = "{name}"\n'
    (tree / "outlast.toml").write_text(head + case.get("toml", ""))
    return tree


def check(rig: Rig, name: str, case: dict) -> list[str]:
    """What is wrong; empty is good."""
    began = time.monotonic()
    done = rig.ask("run", str(project(rig.work, name, case)))
    took = time.monotonic() - began
    (rig.work / f"{name}.out").write_text(done.stdout + "\n--\n" + done.stderr)
    wrong = []
    runs = rig.json("status", "--all")
    runs = runs.get("runs", runs) if isinstance(runs, dict) else runs
    run = next(r for r in runs if r["name"].startswith(name))
    detail = rig.json("status", run["name"])
    attempts = detail.get("attempts", [])
    if done.returncode != case["exit"]:
        wrong.append(f"exit code {done.returncode}, not {case['exit']}")
    if "attempts" in case and len(attempts) != case["attempts"]:
        wrong.append(f"{len(attempts)} attempts, not {case['attempts']}: {[a.get('ending') for a in attempts]}")
    starts = [int(line.split("=")[1]) for line in done.stdout.splitlines() if line.startswith("resumed=")]
    for at in starts[1:]:
        if at < 20 or at % 10 or at > case.get("resume_at_most", at):
            wrong.append(f"went on from step {at}")
    why = rig.json("why", run["name"]) if case["exit"] else {}
    verdict = why.get("verdict", {})
    if name == "oom" and (verdict.get("cause"), verdict.get("confidence")) != ("out-of-memory", "certain"):
        wrong.append(f"the verdict is {verdict}")
    endings = "; ".join(a.get("ending", "") for a in attempts)
    print(f"guest: {name}: {'good' if not wrong else 'FAILED'} in {took:.0f} s, starts {starts}, {endings} "
          f"{verdict.get('cause', '')} {verdict.get('confidence', '')}".rstrip(), flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--outlast", required=True, type=lambda p: str(pathlib.Path(p).resolve()))
    parser.add_argument("--agent", required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--image", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "outlast-guest")
    parser.add_argument("--keep", action="store_true", help="leave the working directory")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    args = parser.parse_args()
    subprocess.run(["bash", str(RIG / "image.sh"), str(args.image)], check=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="outlast-guest."))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rig = Rig(args, work)
    failed = 0
    names = args.cases or list(CASES)
    try:
        for name in names:
            try:
                wrong = check(rig, name, CASES[name])
            except (subprocess.TimeoutExpired, StopIteration, ValueError) as error:
                wrong = [f"{type(error).__name__}: {error}"]
            if wrong:
                failed += 1
                print(f"guest: {name}: " + "; ".join(wrong), flush=True)
                saved = work / f"{name}.out"
                if saved.exists():
                    print(saved.read_text()[-3000:], flush=True)
    finally:
        rows = rig.json("machines")
        for row in rows if isinstance(rows, list) else rows.get("machines", []):
            rig.ask("destroy", row["id"], "--yes", timeout=60)
        rig.ask("controller", "stop", timeout=60)
        if not args.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
