#!/usr/bin/env python3
"""Reads the same three files with our readers and with others, each in a process of its own.

    readers.py --read-speed target/release/examples/read_speed --program target/release/outlast --python PYTHON \
        [--wandb-python PYTHON] [--rounds 3]

PYTHON has tensorboard, tbparse, tensorboard-data-server, orjson, polars and duckdb; the other one has wandb 0.16.6, the last
that ships a reader of its files. Prints a Markdown table: processor seconds of reading alone (imports are not counted), the
highest resident size of the whole process, and the ratio to ours; medians. `analyze` is the whole program from its start,
which judges what it reads.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

# Each reads the file `path` and gives the number of values that it took.
PEERS = {
    "events.tfevents": {
        "EventAccumulator (TensorBoard)": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
def read(path):
    acc = EventAccumulator(path, size_guidance={"scalars": 0}); acc.Reload()
    return sum(len(acc.Scalars(tag)) for tag in acc.Tags()["scalars"])""",
        "tbparse": """
from tbparse import SummaryReader
def read(path):
    return len(SummaryReader(path).scalars)""",
    },
    "rows.jsonl": {
        "orjson, a line at a time": """
import orjson
def read(path):
    with open(path, "rb") as file:
        return sum(len(orjson.loads(line)) for line in file)""",
        "polars": """
import polars
def read(path):
    frame = polars.read_ndjson(path)
    return frame.height * frame.width""",
        "duckdb": """
import duckdb
def read(path):
    rows = duckdb.sql(f"select * from read_ndjson('{path}')").fetchnumpy()
    return sum(len(column) for column in rows.values())""",
    },
    "run.wandb": {
        "W&B's DataStore and protobuf": """
import json
from wandb.sdk.internal.datastore import DataStore
from wandb.proto import wandb_internal_pb2
def read(path):
    store = DataStore(); store.open_for_scan(path)
    values = 0
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record(); record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            values += sum(json.loads(item.value_json) is not None for item in record.history.item)
    return values""",
    },
}

TIMED = """
import json, resource, sys, time
{code}
begin = time.process_time()
values = read(sys.argv[1])
took = time.process_time() - begin
print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, values]))
"""


def peer(python, code, path):
    done = subprocess.run([python, "-c", TIMED.format(code=code), path], capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip().splitlines()[-1:]
    return json.loads(done.stdout.splitlines()[-1]), ""


def whole(command):
    """Processor seconds and highest resident MiB of a program."""
    with open(os.devnull, "wb") as nowhere:
        child = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, child.returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read-speed", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--wandb-python")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    place = tempfile.mkdtemp(prefix="readers-")
    try:
        said = subprocess.run([options.read_speed, place, "keep"], capture_output=True, text=True, check=True).stdout
        ours = {row[0]: float(row[3]) for row in (line.split() for line in said.splitlines()[1:])}
        print("| file | MB | read by | CPU s | peak MiB | times ours |\n|---|---|---|---|---|---|")
        for name, others in PEERS.items():
            path = os.path.join(place, name)
            size = os.path.getsize(path) / 1e6
            print(f"| {name} | {size:.1f} | our reader, into columns | {ours[name]:.3f} | | 1 |", flush=True)
            taken = [whole([options.program, "analyze", path]) for _ in range(options.rounds)]
            cpu, peak = (statistics.median(row[i] for row in taken) for i in (0, 1))
            bad = "" if all(row[2] == 0 for row in taken) else " (failed)"
            print(f"| | | `outlast analyze`{bad} | {cpu:.3f} | {peak:.1f} | {cpu / ours[name]:.1f} |", flush=True)
            for what, code in others.items():
                python = options.wandb_python if name == "run.wandb" else options.python
                if not python:
                    continue
                rows = [peer(python, code, path) for _ in range(options.rounds)]
                if any(row is None for row, _ in rows):
                    print(f"| | | {what} | not measured: {rows[0][1] or rows[-1][1]} | | |", flush=True)
                    continue
                cpu, peak = (statistics.median(row[i] for row, _ in rows) for i in (0, 1))
                print(f"| | | {what} | {cpu:.2f} | {peak:.0f} | {cpu / ours[name]:.0f} |", flush=True)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())
