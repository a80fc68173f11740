"""Machines behind the fake: a command that is told what happens, and whose address the official client gets."""

import json
import os
import pathlib
import tempfile
import time

from ends import Client, Fake

SCRIPT = """#!/bin/sh
told=$(cat)
printf '%s\\n' "$told" >>told.jsonl
case $told in *'"event":"start"'*) echo '{"ssh_host": "127.0.0.1", "ssh_port": 4122}' ;; esac
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfTheAccount account"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfTheInstance instance"


def wait(what: str, ready) -> None:
    until = time.monotonic() + 180
    while not ready():
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come about")
        time.sleep(0.05)


def check(program: pathlib.Path, client_program: pathlib.Path, that) -> int:
    """How many commands of the client were run."""
    with tempfile.TemporaryDirectory(prefix="outlast-vast.") as folder:
        boot, told = pathlib.Path(folder, "boot"), pathlib.Path(folder, "told.jsonl")
        boot.write_text(SCRIPT)
        os.chmod(boot, 0o755)
        fake = Fake(program, "--machines", folder, "--boot", str(boot), "--offers", "3")
        client = Client(client_program, fake.url)
        # The last line may be on its way.
        whole = lambda: told.read_text().split("\n")[:-1] if told.exists() else []
        lines = lambda: [json.loads(line) for line in whole()]
        try:
            client.run("create", "ssh-key", KEY)
            ask = str(fake.state()["machines"][0]["ask"])
            made = client.run("create", "instance", ask, "--image", "x", "--ssh", "--direct", "--env", "-e A=b", "--raw")
            number = made.json["new_contract"]
            fake.advance(61)
            wait("an address", lambda: fake.instance(number)["ssh"])
            said = client.run("ssh-url", str(number))
            that("machines: the address of the command", said.out == "ssh://root@127.0.0.1:4122\n", said)
            client.run("attach", "ssh", str(number), OTHER)
            client.run("stop", "instance", str(number))
            wait("a stop", lambda: len(lines()) == 3)
            fake.advance(61)
            client.run("destroy", "instance", str(number), "-y")
            wait("an end", lambda: len(lines()) == 4)
            that("machines: what they were told", [line["event"] for line in lines()] == ["start", "keys", "stop", "destroy"], lines())
            first, second = lines()[0]["details"], lines()[1]["details"]
            that("machines: keys", first["ssh_keys"] == [KEY] and second["ssh_keys"] == [KEY, OTHER], lines())
            that("machines: environment", first["env"]["A"] == "b" and first["env"]["CONTAINER_ID"] == str(number), first)
        finally:
            fake.close()
        return client.runs
