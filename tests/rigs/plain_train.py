"""A training that needs nothing beside Python, in place of examples/digits where packages cannot be installed.

It keeps the same contract and understands the same DIGITS_* variables; what it "learns" is a chain of hashes, so a
step that is left out, repeated or done from another state ends in other weights.
"""

import hashlib
import json
import os
import random
import sys
import time
import zipfile

STEPS = int(os.environ.get("DIGITS_STEPS") or 600)
PACE = float(os.environ.get("DIGITS_STEP_MS") or 80) / 1000
CHECKPOINTS = os.environ.get("OUTLAST_CHECKPOINT_DIR") or "checkpoints"
OUTPUT = os.environ.get("OUTLAST_OUTPUT_DIR") or "results"
RESUME_FROM = os.environ.get("OUTLAST_RESUME_FROM") or ""
GENERATION = os.environ.get("OUTLAST_GENERATION") or "0"
LAST_GENERATION = int(os.environ.get("DIGITS_LAST_GENERATION") or 0)
SAVE_EVERY = 20


def append(variable, line):
    if path := os.environ.get(variable):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def durably(directory, name, write):
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f".{name}.tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, os.path.join(directory, name))


def save(step, weights):
    """An .npz is a zip; without a time stamp in it the same state gives the same bytes."""

    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("state.json"), json.dumps({"step": step, "weights": weights.hex()}))
            archive.writestr(zipfile.ZipInfo("ballast"), random.Random(step).randbytes(200_000))

    durably(CHECKPOINTS, f"step-{step:06d}.npz", write)


def load():
    if not RESUME_FROM:
        return 0, bytes(32)
    with zipfile.ZipFile(RESUME_FROM) as archive:
        state = json.loads(archive.read("state.json"))
    return state["step"], bytes.fromhex(state["weights"])


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    step, weights = load()
    start = {"generation": int(GENERATION), "attempt": os.environ.get("OUTLAST_ATTEMPT") or "", "pid": os.getpid()}
    start |= {"resume_step": step if RESUME_FROM else None}
    start |= {"resume_sha256": sha256(RESUME_FROM) if RESUME_FROM else None}
    append("DIGITS_START_FILE", json.dumps(start) + "\n")
    while step < STEPS:
        step, weights = step + 1, hashlib.sha256(weights).digest()
        append("DIGITS_STEP_FILE", f"{GENERATION} {step} {time.time_ns() // 1_000_000}\n")
        print(json.dumps({"step": step, "loss": 1 / step}), flush=True)
        if step % SAVE_EVERY == 0:
            save(step, weights)
        time.sleep(PACE)
        while step == STEPS - 1 and int(GENERATION) < LAST_GENERATION:
            time.sleep(0.05)
    durably(OUTPUT, "weights.npy", lambda file: file.write(weights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
