"""The program that is trained in the loss rig: a step each 0.1 s, a checkpoint each second, and on request a fault.

    train.py DIRECTORY

What happens is appended to files in DIRECTORY, which no fault of the network reaches:
`starts` (JSON a line: pid, machine, attempt, first step, time), `steps` (attempt, step, time), `ends` (what the program
did to itself and when). A file `order` there is an order to it: `exit N`, `segv`, `eat` (memory), `fill PATH`,
`flood BYTES_PER_SECOND`, `finish`.
"""
import json
import os
import signal
import sys
import time

STEP = 0.1


def append(path, text):
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, text.encode() + b"\n")
    os.close(handle)


def save(step):
    place = os.environ["OUTLAST_CHECKPOINT_DIR"]
    path = f"{place}/step-{step:06d}.json"
    with open(path + ".tmp", "w", encoding="ascii") as file:
        json.dump({"step": step}, file)
    os.rename(path + ".tmp", path)


def obey(home, order, ballast):
    word, _, rest = order.partition(" ")
    if word == "finish":
        sys.exit(0)
    if word == "eat":
        append(f"{home}/ends", f"eat {time.time()}")
        while True:
            ballast.append(b"x" * (4 << 20))
    if word == "fill":
        append(f"{home}/ends", f"fill {time.time()}")
        with open(rest, "wb") as file:
            while True:
                file.write(b"x" * 65536)
                file.flush()
    if word == "exit":
        print("RuntimeError: the rig asked for it", file=sys.stderr, flush=True)
        append(f"{home}/ends", f"exit {time.time()}")
        os._exit(int(rest))
    if word == "segv":
        append(f"{home}/ends", f"segv {time.time()}")
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10)


def main():
    home = sys.argv[1]
    resume = os.environ.get("OUTLAST_RESUME_FROM")
    step = json.load(open(resume, encoding="ascii"))["step"] if resume else 0
    attempt = os.environ["OUTLAST_ATTEMPT"]
    start = {"pid": os.getpid(), "machine": os.environ["OUTLAST_MACHINE_ID"], "attempt": attempt, "step": step}
    append(f"{home}/starts", json.dumps({**start, "at": time.time()}))
    ballast, flood = [], 0
    while True:
        due = time.monotonic() + STEP
        step += 1
        print(f"step={step} loss={1 / step:.6f}", flush=True)
        append(f"{home}/steps", f"{attempt} {step} {time.time()}")
        if step % 10 == 0:
            save(step)
        order = ""
        try:
            with open(f"{home}/order", encoding="ascii") as file:
                order = file.read()
        except FileNotFoundError:
            pass
        if order.startswith("flood"):
            flood = int(order.split()[1])
        elif order:
            if order != "finish":
                os.unlink(f"{home}/order")
            obey(home, order, ballast)
        if flood:
            line = ("noise " * 20)[:99] + "\n"
            sys.stdout.write(line * max(1, int(flood * STEP) // 100))
            sys.stdout.flush()
        time.sleep(max(0, due - time.monotonic()))


if __name__ == "__main__":
    main()
