#!/usr/bin/env python3
"""Stands before the first process of a local machine and makes it a whole virtual machine.

The controller starts `machine.py ... /bin/sh -c GATE ./first-boot.sh` in the machine's directory. What the first boot
would write is put on a seed disk instead, with addresses as the guest sees them, and QEMU becomes the machine's
process: ended when the machine is destroyed. Loopback of this computer is 10.0.2.2 in the guest.

  machine.py IMAGE AGENT UNIT ...    the directory made by image.sh, the static agent, its systemd unit
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = "10.0.2.2"


def document(script: str, name: str) -> str:
    found = re.search(r"cat > %s <<'(\w+)'\n(.*?)\n\1\n" % re.escape(name), script, re.S)
    if not found:
        sys.exit(f"machine.py: the first boot writes no {name}")
    return found.group(2)


def seen_from_inside(text: str) -> str:
    machine = json.loads(text)
    for key in ("endpoints", "join_endpoints"):
        machine[key] = [re.sub(r"^(127\.0\.0\.1|localhost):", HERE + ":", address) for address in machine[key]]
    machine["cache_dir"] = "/var/cache/outlast"
    machine.pop("health_listen", None)
    return json.dumps(machine)


def main() -> None:
    sys.stdin.buffer.readline()  # the controller has written down that this process exists
    image, agent, unit = map(pathlib.Path, sys.argv[1:4])
    first_boot = pathlib.Path("first-boot.sh")
    script = first_boot.read_text()
    first_boot.unlink()
    seed = pathlib.Path("seed")
    seed.mkdir(mode=0o700)
    (seed / "machine.json").write_text(seen_from_inside(document(script, "machine.json")))
    (seed / "join.token").write_text(document(script, "join.token") + "\n")
    shutil.copy(agent, seed / "outlast-agent")
    shutil.copy(unit, seed / "outlast-agent.service")
    subprocess.run(["truncate", "-s", "64M", "seed.img"], check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext2", "-F", "-d", "seed", "seed.img"], check=True)
    shutil.rmtree(seed)
    base = image.resolve() / "root.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", "root.qcow2"], check=True)
    os.execvp(
        "qemu-system-x86_64",
        [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "pc", "-cpu", "max", "-smp", "2", "-m", "768",
            "-nodefaults", "-display", "none", "-serial", "stdio", "-monitor", "none",
            "-kernel", str(image / "vmlinux"), "-initrd", str(image / "first.cpio"),
            "-append", "console=ttyS0 quiet panic=-1 systemd.show_status=no mitigations=off random.trust_cpu=on",
            "-drive", "file=root.qcow2,if=virtio,format=qcow2,cache=unsafe",
            "-drive", "file=seed.img,if=virtio,format=raw,readonly=on",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci",
        ],
    )


if __name__ == "__main__":
    main()
