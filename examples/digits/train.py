"""Trains a small network on scikit-learn's digits, one step at a time.

Every 20 steps all that decides the rest of the run (weights, optimiser moments, random generator, data order
and position) is saved, so that a run broken anywhere and resumed ends with bit-identical weights.
"""

import os

# Several BLAS threads sum in varying order; the pin must come before numpy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import ctypes
import glob
import hashlib
import json
import math
import signal
import sys
import time

import numpy as np
from sklearn.datasets import load_digits


def setting(name, default):
    """An environment variable, where empty counts as absent."""
    return os.environ.get(name) or default


STEPS = int(setting("DIGITS_STEPS", "600"))
STEP_SECONDS = float(setting("DIGITS_STEP_MS", "80")) / 1000
CHECKPOINTS = setting("OUTLAST_CHECKPOINT_DIR", "checkpoints")
OUTPUT = setting("OUTLAST_OUTPUT_DIR", "results")
RESUME_FROM = setting("OUTLAST_RESUME_FROM", "")
GENERATION = setting("OUTLAST_GENERATION", "0")
SAVE_EVERY, BATCH, HIDDEN, CLASSES = 20, 64, 128, 10
PEAK_RATE, WARMUP = 2e-3, 30
PARAMETERS = ("w1", "b1", "w2", "b2")

stopping = False


def on_term(_signal, _frame):
    global stopping
    stopping = True


def append(path, line):
    """One write per line: a reader outside never sees half a line, and no line is held back in a buffer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(directory, name, write):
    """Writes to a temporary name, flushes to the disk, then renames: `name` is whole or absent."""
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f".{name}.tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, os.path.join(directory, name))
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_data():
    digits = load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    x, y = digits.data[order] / 16.0, digits.target[order]
    return (x[:1440], y[:1440]), (x[1440:], y[1440:])


class Training:
    def __init__(self, samples):
        self.rng = np.random.default_rng(20)
        self.step = 0
        self.order = self.rng.permutation(samples)
        self.position = 0
        self.weights = {
            "w1": self.rng.normal(0, math.sqrt(2 / 64), (64, HIDDEN)),
            "b1": np.zeros(HIDDEN),
            "w2": self.rng.normal(0, math.sqrt(2 / HIDDEN), (HIDDEN, CLASSES)),
            "b2": np.zeros(CLASSES),
        }
        self.mean = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.square = {name: np.zeros_like(value) for name, value in self.weights.items()}

    def save(self):
        arrays = {f"weights.{n}": self.weights[n] for n in PARAMETERS}
        arrays |= {f"mean.{n}": self.mean[n] for n in PARAMETERS}
        arrays |= {f"square.{n}": self.square[n] for n in PARAMETERS}
        generator = json.dumps(self.rng.bit_generator.state, sort_keys=True).encode()
        arrays |= {"rng": np.frombuffer(generator, np.uint8), "order": self.order}
        arrays |= {"position": np.int64(self.position), "step": np.int64(self.step)}
        write_durably(CHECKPOINTS, f"step-{self.step:06d}.npz", lambda file: np.savez(file, **arrays))

    def load(self, path):
        with np.load(path, allow_pickle=False) as saved:
            for name in PARAMETERS:
                self.weights[name] = saved[f"weights.{name}"]
                self.mean[name] = saved[f"mean.{name}"]
                self.square[name] = saved[f"square.{name}"]
            self.rng.bit_generator.state = json.loads(saved["rng"].tobytes())
            self.order = saved["order"]
            self.position, self.step = int(saved["position"]), int(saved["step"])

    def next_batch(self):
        if self.position + BATCH > len(self.order):
            self.order, self.position = self.rng.permutation(len(self.order)), 0
        batch = self.order[self.position : self.position + BATCH]
        self.position += BATCH
        return batch

    def forward(self, x):
        hidden = np.maximum(x @ self.weights["w1"] + self.weights["b1"], 0)
        scores = hidden @ self.weights["w2"] + self.weights["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        return hidden, odds / odds.sum(axis=1, keepdims=True)

    def rate(self):
        if self.step < WARMUP:
            return PEAK_RATE * (self.step + 1) / WARMUP
        done = (self.step - WARMUP) / max(1, STEPS - WARMUP)
        return PEAK_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def advance(self, x, y):
        """One step of Adam on one minibatch with a little input noise; returns its loss and rate."""
        batch = self.next_batch()
        inputs = x[batch] + self.rng.normal(0, 0.05, (BATCH, x.shape[1]))
        hidden, odds = self.forward(inputs)
        rows = np.arange(BATCH)
        loss = float(-np.log(odds[rows, y[batch]] + 1e-12).mean())
        delta = odds
        delta[rows, y[batch]] -= 1
        delta /= BATCH
        back = (delta @ self.weights["w2"].T) * (hidden > 0)
        gradients = {"w1": inputs.T @ back, "b1": back.sum(0), "w2": hidden.T @ delta, "b2": delta.sum(0)}
        rate = self.rate()
        self.step += 1
        for name in PARAMETERS:
            gradient, mean, square = gradients[name], self.mean[name], self.square[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            corrected = np.sqrt(square / (1 - 0.999**self.step)) + 1e-8
            self.weights[name] -= rate * (mean / (1 - 0.9**self.step)) / corrected
        return loss, rate

    def accuracy(self, x, y):
        return float((self.forward(x)[1].argmax(axis=1) == y).mean())


def checkpoint_file(path):
    """The file to resume from; of a directory, the newest checkpoint in it."""
    if os.path.isdir(path):
        found = sorted(glob.glob(os.path.join(glob.escape(path), "step-*.npz")))
        if not found:
            sys.exit(f"no step-*.npz in {path}: nothing to resume from")
        return found[-1]
    return path


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rehearse_failure(step):
    """DIGITS_FAIL_AT_STEP=N with DIGITS_FAIL_HOW=exit1|exit137|segv|kill|ignore-term fails after step N, before
    its checkpoint. DIGITS_FAIL_ONCE=FILE: only if FILE does not exist yet (it is made), so a retry gets through."""
    if str(step) != setting("DIGITS_FAIL_AT_STEP", ""):
        return
    marker = setting("DIGITS_FAIL_ONCE", "")
    if marker:
        try:
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return
    how = setting("DIGITS_FAIL_HOW", "exit1")
    if how == "exit1":
        raise RuntimeError(f"rehearsed failure at step {step}")
    if how == "exit137":
        os._exit(137)
    if how == "segv":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "ignore-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    sys.exit(f"DIGITS_FAIL_HOW={how} is not one of exit1, exit137, segv, kill, ignore-term")


def rehearse_endurance(step):
    """DIGITS_LAST_GENERATION=N: generations before it stand still before the last step, until they are ended."""
    while step == STEPS - 1 and int(GENERATION) < int(setting("DIGITS_LAST_GENERATION", "0")) and not stopping:
        time.sleep(0.05)


def keep_pace(due):
    """Sleeps until `due` in slices, so that a request to stop is noticed soon."""
    while not stopping and (left := due - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


def finish(training, test):
    flat = np.concatenate([training.weights[name].ravel() for name in PARAMETERS]).astype("<f8")
    write_durably(OUTPUT, "weights.npy", lambda file: np.save(file, flat))
    digest = sha256(os.path.join(OUTPUT, "weights.npy"))
    result = {"steps": training.step, "test_acc": training.accuracy(*test), "weights_sha256": digest}
    text = json.dumps(result, indent=2, sort_keys=True) + "\n"
    write_durably(OUTPUT, "metrics.json", lambda file: file.write(text.encode()))
    print(f"finished after {training.step} steps, weights sha256 {digest}", flush=True)


def main():
    signal.signal(signal.SIGTERM, on_term)
    train, test = load_data()
    training = Training(len(train[1]))
    resumed = None
    if RESUME_FROM:
        resumed = checkpoint_file(RESUME_FROM)
        training.load(resumed)
        print(f"resumed from {resumed} at step {training.step}", flush=True)
    if path := setting("DIGITS_START_FILE", ""):
        start = {"generation": int(GENERATION), "attempt": setting("OUTLAST_ATTEMPT", "")}
        start |= {"resume_step": training.step if resumed else None, "pid": os.getpid()}
        start |= {"resume_sha256": sha256(resumed) if resumed else None}
        append(path, json.dumps(start) + "\n")
    step_file = setting("DIGITS_STEP_FILE", "")
    while training.step < STEPS:
        due = time.monotonic() + STEP_SECONDS
        loss, rate = training.advance(*train)
        if step_file:
            append(step_file, f"{GENERATION} {training.step} {time.time_ns() // 1_000_000}\n")
        line = {"step": training.step, "loss": round(loss, 6), "acc": round(training.accuracy(*test), 6)}
        print(json.dumps(line | {"lr": rate}), flush=True)
        rehearse_failure(training.step)
        if training.step % SAVE_EVERY == 0:
            training.save()
        keep_pace(due)
        rehearse_endurance(training.step)
        if stopping and training.step < STEPS:
            training.save()
            print(f"stopped at step {training.step}: checkpoint saved", flush=True)
            return 143
    finish(training, test)
    return 0


if __name__ == "__main__":
    sys.exit(main())
