#!/usr/bin/env python3
"""A machine behind the fake Vast: namespaces of its own, with a real sshd in front.

The fake calls it when an instance starts, stops, is destroyed or gets a key, with JSON on the standard input; it
answers a start with where the sshd listens. The machine has its own processes, its own /root and no network at all,
but for the vendor's own address, as on a real one: nothing on it can reach another port of this computer. Its first process has the environment that a container has there.
Needs root, `unshare`, `nsenter` and `sshd`. Everything lies below the working directory, in one folder for each
instance.
"""

import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

ENTER = """#!/bin/sh
# What a person or a program asked for, inside the machine.
exec nsenter -t {first} -m -p -n -u -- env -i {env} sh -c 'cd /root && exec sh -c "$1"' sh "${{SSH_ORIGINAL_COMMAND:-exec sh}}"
"""
CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
ForceCommand {folder}/enter
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
MaxSessions 100
"""
INSIDE = "mount --bind {root} /root && mount -t proc proc /proc && ip link set lo up; echo up; exec sleep infinity"


def serve(folder: pathlib.Path) -> int:
    """The server, on a port that it could take. Below those that outgoing connections get: one that was looked for
    first may be somebody else's by the time that the server wants it."""
    daemon = ["/usr/sbin/sshd", "-f", folder / "sshd_config", "-E", folder / "sshd.log"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(50):
        port = random.randrange(20_000, 32_000)
        (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
        if subprocess.run(daemon, **quiet).returncode == 0:
            return port
    raise OSError(f"sshd does not start: see {folder}/sshd.log")


def environment(details: dict) -> dict:
    own = {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "USER": "root"}
    return own | {name: str(value) for name, value in details["env"].items() if not name.startswith("-p ")}


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def relay(first: int, port: int) -> None:
    """The vendor's address, inside the machine: listens there and connects from here."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as own, open(f"/proc/{first}/ns/net") as there:
        if libc.setns(there.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        door = socket.create_server(("127.0.0.1", port))
        if libc.setns(own.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def pump(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    while True:
        inner = door.accept()[0]
        try:
            outer = socket.create_connection(("127.0.0.1", port))
        except OSError:
            inner.close()
            continue
        for pair in ((inner, outer), (outer, inner)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def write_keys(folder: pathlib.Path, details: dict) -> None:
    part = folder / "authorized_keys.part"
    part.write_text("".join(f"{key}\n" for key in details["ssh_keys"]))
    part.rename(folder / "authorized_keys")


def start(folder: pathlib.Path, details: dict) -> None:
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    write_keys(folder, details)
    if not (folder / "host_key").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
    log = (folder / "machine.log").open("ab")
    outer = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child", "sh", "-c", INSIDE.format(root=root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env=environment(details),
    )
    outer.stdout.readline()
    first = children(outer.pid)[0]
    pids = [outer.pid, first]
    if vendor := re.search(r"http://127\.0\.0\.1:(\d+)", details["onstart"] or ""):
        arguments = [sys.executable, __file__, "relay", str(first), vendor[1], folder]
        pids.append(subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True).pid)
    (folder / "pids").write_text(" ".join(map(str, pids)))
    env = " ".join(f"'{name}={value}'" for name, value in environment(details).items() if not name.startswith("CONTAINER"))
    enter = folder / "enter"
    enter.write_text(ENTER.format(first=first, env=env))
    enter.chmod(0o755)
    os.makedirs("/run/sshd", exist_ok=True)
    port = serve(folder)
    if details["onstart"]:
        subprocess.Popen(
            [enter],
            env={"SSH_ORIGINAL_COMMAND": details["onstart"], "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    print(json.dumps({"ssh_host": "127.0.0.1", "ssh_port": port}))


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    until = time.monotonic() + 30
    while time.monotonic() < until and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)


def stop(folder: pathlib.Path) -> None:
    try:
        daemon = int((folder / "sshd.pid").read_text())
    except (OSError, ValueError):
        daemon = 0
    sessions = children(daemon) if daemon else []
    for pid in [daemon, *sessions]:
        if pid:
            end(pid)
    try:
        outer, first, *others = (folder / "pids").read_text().split()
    except (OSError, ValueError):
        return
    # With its first process a whole machine ends, as in a power cut.
    for pid in [first, outer, *others]:
        end(int(pid))
    (folder / "pids").unlink(missing_ok=True)


def main() -> None:
    if sys.argv[1:2] == ["relay"]:
        relay(int(sys.argv[2]), int(sys.argv[3]))
    told = json.load(sys.stdin)
    folder = pathlib.Path.cwd() / str(told["instance"])
    match told["event"]:
        case "start":
            start(folder, told["details"])
        case "keys":
            write_keys(folder, told["details"])
        case "stop":
            stop(folder)
        case "destroy":
            stop(folder)
            shutil.rmtree(folder, ignore_errors=True)


main()
