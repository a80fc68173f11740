"""Fits a logistic regression by stochastic gradient descent, with the standard library alone.

It saves as the big frameworks do: a directory per checkpoint, written in place, its `trainer_state.json` last.
"""

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sys
import time


def setting(name, default):
    """An environment variable, where empty counts as absent."""
    return os.environ.get(name) or default


STEPS = int(setting("TOY_STEPS", "200"))
STEP_SECONDS = float(setting("TOY_STEP_MS", "100")) / 1000
SAVE_EVERY = int(setting("TOY_SAVE_EVERY", "10"))
KEEP = int(setting("TOY_KEEP", "0"))
GENERATION = setting("OUTLAST_GENERATION", "0")
RUN_DIRECTORY = os.path.join("runs", "a")
FEATURES, BATCH, RATE, MOMENTUM = 8, 16, 0.1, 0.9


def append(path, line):
    """One write per line, flushed to the disk: what a reader outside sees was truly done."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def tree_sha256(path):
    """Over `relative path, NUL, hex digest of the content, newline` of every file, sorted by path."""
    lines = []
    for directory, _, names in os.walk(path):
        for name in names:
            full = os.path.join(directory, name)
            with open(full, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            lines.append(f"{os.path.relpath(full, path)}\0{digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


class Training:
    def __init__(self):
        self.random = random.Random(5)
        self.truth = [math.sin(3.0 * i + 1.0) * 2 for i in range(FEATURES)]
        self.weights = [0.0] * FEATURES
        self.momentum = [0.0] * FEATURES
        self.step = 0

    def advance(self):
        gradient, loss = [0.0] * FEATURES, 0.0
        for _ in range(BATCH):
            x = [self.random.gauss(0, 1) for _ in range(FEATURES)]
            label = 1.0 if sum(a * b for a, b in zip(x, self.truth)) > 0 else 0.0
            odds = 1 / (1 + math.exp(-sum(a * b for a, b in zip(x, self.weights))))
            loss -= math.log(odds if label else 1 - odds)
            for i in range(FEATURES):
                gradient[i] += (odds - label) * x[i] / BATCH
        for i in range(FEATURES):
            self.momentum[i] = MOMENTUM * self.momentum[i] + gradient[i]
            self.weights[i] -= RATE * self.momentum[i]
        self.step += 1
        return loss / BATCH

    def save(self):
        final = os.path.join(RUN_DIRECTORY, f"checkpoint-{self.step}")
        path = os.path.join(RUN_DIRECTORY, f"tmp-checkpoint-{self.step}")
        for old in (path, final):
            shutil.rmtree(old, ignore_errors=True)
        os.makedirs(path)
        write_json(os.path.join(path, "state.json"), {"weights": self.weights})
        write_json(os.path.join(path, "optimizer.json"), {"momentum": self.momentum})
        write_json(os.path.join(path, "rng_state.json"), self.random.getstate())
        write_json(os.path.join(path, "trainer_state.json"), {"global_step": self.step, "max_steps": STEPS})
        os.rename(path, final)
        if KEEP:
            saved = [n for n in os.listdir(RUN_DIRECTORY) if n.removeprefix("checkpoint-").isdigit()]
            for name in sorted(saved, key=lambda n: int(n.removeprefix("checkpoint-")))[:-KEEP]:
                shutil.rmtree(os.path.join(RUN_DIRECTORY, name))

    def load(self, path):
        self.weights = read_json(os.path.join(path, "state.json"))["weights"]
        self.momentum = read_json(os.path.join(path, "optimizer.json"))["momentum"]
        version, internal, gauss = read_json(os.path.join(path, "rng_state.json"))
        self.random.setstate((version, tuple(internal), gauss))
        self.step = read_json(os.path.join(path, "trainer_state.json"))["global_step"]


def rehearse_failure(step):
    """TOY_FAIL_AT_STEP=N with TOY_FAIL_HOW=exit1|exit137|segv|kill|ignore-term fails after step N, before its
    checkpoint. TOY_FAIL_ONCE=FILE: only if FILE does not exist yet (it is made), so a retry gets through."""
    if str(step) != setting("TOY_FAIL_AT_STEP", ""):
        return
    marker = setting("TOY_FAIL_ONCE", "")
    if marker:
        try:
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return
    how = setting("TOY_FAIL_HOW", "exit1")
    if how == "exit1":
        raise RuntimeError(f"rehearsed failure at step {step}")
    if how == "exit137":
        os._exit(137)
    if how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "ignore-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    sys.exit(f"TOY_FAIL_HOW={how} is not one of exit1, exit137, segv, kill, ignore-term")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", metavar="PATH", help="a checkpoint directory to start from")
    resume = parser.parse_args().resume
    training = Training()
    if resume:
        training.load(resume)
        print(f"resumed from {resume} at step {training.step}", flush=True)
    if path := setting("TOY_START_FILE", ""):
        start = {"generation": int(GENERATION), "attempt": setting("OUTLAST_ATTEMPT", "")}
        start |= {"resume_step": training.step if resume else None, "pid": os.getpid()}
        start |= {"resume_sha256": tree_sha256(resume) if resume else None}
        append(path, json.dumps(start) + "\n")
    step_file = setting("TOY_STEP_FILE", "")
    while training.step < STEPS:
        due = time.monotonic() + STEP_SECONDS
        loss = training.advance()
        if step_file:
            append(step_file, f"{GENERATION} {training.step}\n")
        print(f"step={training.step} loss={loss:.6f} lr={RATE}", flush=True)
        rehearse_failure(training.step)
        if training.step % SAVE_EVERY == 0:
            training.save()
        time.sleep(max(0.0, due - time.monotonic()))
    os.makedirs("results", exist_ok=True)
    write_json(os.path.join("results", "weights.json"), training.weights)
    with open(os.path.join("results", "weights.json"), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    print(f"finished after {training.step} steps, weights sha256 {digest}", flush=True)


if __name__ == "__main__":
    main()
