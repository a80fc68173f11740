#!/usr/bin/env python3
"""Moves the machine that is being started into a free network namespace of the lab, and becomes it.

    place.py LAB COMMAND...

Put before a machine's first process by OUTLAST_LOCAL_WRAP. A namespace is claimed by renaming its file, so that two
machines never share one.
"""
import ctypes
import os
import sys
import time

CLONE_NEWNET = 0x40000000


def main():
    lab, command = sys.argv[1], sys.argv[2:]
    machine = os.environ["OUTLAST_MACHINE_ID"]
    until = time.monotonic() + 180
    while True:
        for name in sorted(os.listdir(f"{lab}/free")):
            try:
                os.rename(f"{lab}/free/{name}", f"{lab}/taken/{machine}")
            except FileNotFoundError:
                continue
            with open(f"{lab}/taken/{machine}", encoding="ascii") as file:
                number, namespace = file.read().split()
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
                sys.exit(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
            os.close(handle)
            # The machine says farewell if it is ended while this file exists.
            os.environ["OUTLAST_SHUTDOWN_SIGN"] = f"{lab}/signs/{machine}"
            os.execvp(command[0], command)
        if time.monotonic() > until:
            sys.exit("no network namespace of the lab is free")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
