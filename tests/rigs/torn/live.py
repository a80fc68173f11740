"""Runs of the real program whose trainings are killed in the middle of saves; everything durable is put together
again from the store by the reader that knows nothing of the product, and loaded as its framework loads it.

torn      a durable checkpoint, or what a later attempt was given to go on from, does not hold what was to be saved
missed    a save had returned before its program died, and neither it nor a newer one is durable; or the last program,
          which ends well, left a save that is not
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# One of each sort: a file in place, a file saved over and over, a directory, shards saved over older ones.
KINDS = ("torch-zip", "torch-zip-over", "hugging-face", "distributed-over")
LIVES = 3


class Home:
    """A controller of its own, with its machines and its store."""

    def __init__(self, program, place):
        self.program, self.home = program, place / "home"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        (place / "user").mkdir()
        self.env |= {"OUTLAST_HOME": str(self.home), "HOME": str(place / "user")}
        self.env.pop("XDG_CONFIG_HOME", None)

    def outlast(self, *arguments):
        return subprocess.run(
            [self.program, *arguments], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=600,
        )

    def end(self):
        self.outlast("controller", "stop")


def restore(home, key, destination):
    """The path of a durable checkpoint, restored."""
    sys.path.insert(0, str(HERE.parent))
    from read_artifact import main as read

    tree = json.loads((home.home / "objects" / key).read_bytes())
    destination.mkdir(parents=True)
    said, sys.stdout = sys.stdout, open(os.devnull, "w")
    try:
        read(str(home.home / "objects"), key, str(destination))
    finally:
        sys.stdout.close()
        sys.stdout = said
    return destination / tree["name"] if tree.get("single_file") else destination


def run(home, kind, seed, megabytes, place, writers, counts, problems):
    project = place / f"run-{kind}"
    project.mkdir()
    shutil.copy(HERE / "writers.py", project)
    log = place / f"{kind}.log"
    command = [sys.executable, "-B", "writers.py", "train", kind, str(log), str(seed), str(megabytes), str(LIVES)]
    (project / "outlast.toml").write_text(
        f"[run]\ncommand = {json.dumps(command)}\n[environment]\nkind = \"none\"\n[retry]\nfailures = {LIVES + 2}\n"
    )
    name = f"torn-{kind}"
    ended = home.outlast("run", str(project), "--json", "--name", name)
    listed = home.outlast("checkpoints", name, "--json")
    if listed.returncode != 0:
        raise SystemExit(f"torn: {name} has no list of checkpoints: {listed.stderr}{ended.stderr[-2000:]}")
    durable = [one for one in json.loads(listed.stdout) if one["state"] == "COMMITTED"]
    held = set()
    for number, one in enumerate(durable):
        path = restore(home, one["key"], place / f"{kind}-restored" / str(number))
        counts["durable"] += 1
        if writers.holds(kind, str(path), seed, megabytes):
            held.add(writers.step_of(kind, str(path)))
        else:
            problems.append(f"torn: seed {seed}, {kind}: durable step {one.get('step')}, {one['name']}")
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    counts["resumed"] += sum(words[1] == "resumed" for words in lines)
    problems += [f"torn: seed {seed}, {kind}: resumed from {words[2]}" for words in lines if words[1] == "TORN"]
    if ended.returncode != 0:
        problems.append(f"seed {seed}, {kind}: the run did not end well: {ended.stderr[-1000:]}")
        return
    # Whoever saves over the only one may lose it with the next save, but not where nobody died.
    left = [int(words[2]) for words in lines if words[1] == "saved" and int(words[0]) >= LIVES]
    if not left or left[-1] not in held:
        problems.append(f"missed: seed {seed}, {kind}: {left[-1:]} was saved last, {sorted(held)} are durable")
    saved = [int(words[2]) for words in lines if words[1] == "saved"]
    newest = max((int(one["step"]) for one in durable if one.get("step") is not None), default=0)
    if saved and newest < max(saved):
        problems.append(f"missed: seed {seed}, {kind}: step {max(saved)} was saved, step {newest} is durable")


def runs(program, seed, megabytes, place, writers, counts, problems):
    home = Home(program, place)
    try:
        for kind in KINDS:
            run(home, kind, seed, megabytes, place, writers, counts, problems)
        if not counts["resumed"]:
            problems.append(f"seed {seed}: no program went on from a checkpoint: the rig showed nothing")
    finally:
        home.end()
