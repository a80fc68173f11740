#!/usr/bin/env python3
"""How long an assistant waits for `analyze` of a log that has grown since it asked last, beside the first time.

Both are asked of one `outlast mcp`; the log has 100,000 steps of six metrics, and grows by ten of them each time.
What is printed are milliseconds of the answer as a client has it, and processor milliseconds of the server.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import tempfile

ROWS, NEW, TIMES = 100_000, 10, 20


def row(step, noise):
    values = {"step": step, "train/loss": 2.3 * math.exp(-step / 3e4) + 0.3 + noise.gauss(0, 0.02)}
    values |= {"train/grad_norm": 1 + noise.random(), "lr": 1e-3, "tokens_per_second": 9000 + noise.gauss(0, 90)}
    return json.dumps(values | {"val/loss": 0.4 + noise.random() / 50, "val/acc": 0.9 + noise.random() / 50}) + "\n"


class Server:
    def __init__(self, program, directory):
        command = [program, "mcp", "--tools", "analysis"]
        environment = os.environ | {"OUTLAST_HOME": os.path.join(directory, "home")}
        self.process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.number = 0
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.ask("initialize", hello)
        self.say({"method": "notifications/initialized"})

    def say(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
        self.process.stdin.flush()

    def ask(self, method, params):
        self.number += 1
        self.say({"id": self.number, "method": method, "params": params})
        while True:
            answer = json.loads(self.process.stdout.readline())
            if answer.get("id") == self.number:
                return answer["result"]

    def processor_ms(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def measured(server):
    import time

    before, began = server.processor_ms(), time.monotonic()
    said = server.ask("tools/call", {"name": "analyze", "arguments": {"paths": ["metrics.jsonl"]}})
    took = (time.monotonic() - began) * 1000
    assert not said.get("isError"), said
    return took, server.processor_ms() - before, said["content"][0]["text"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", required=True, help="the outlast that is measured")
    program = os.path.abspath(arguments.parse_args().program)
    noise = random.Random(1)
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "metrics.jsonl")
        with open(log, "w") as file:
            file.writelines(row(step, noise) for step in range(ROWS))
        server = Server(program, directory)
        first = measured(server)
        again = []
        for time in range(TIMES):
            with open(log, "a") as file:
                file.writelines(row(ROWS + time * NEW + step, noise) for step in range(NEW))
            took, used, text = measured(server)
            # What is said is of the new rows, too.
            assert str(ROWS + (time + 1) * NEW - 1) in text, text
            again.append((took, used))
        server.process.stdin.close()
        server.process.wait()
    print(f"first: {first[0]:.1f} ms, {first[1]:.0f} ms of processor time")
    times, used = zip(*again)
    print(f"after {NEW} more rows, {TIMES} times: median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms, "
          f"{statistics.mean(used):.1f} ms of processor time in the mean; {first[0] / statistics.median(times):.0f} times as fast")


if __name__ == "__main__":
    main()
