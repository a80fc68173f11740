#!/usr/bin/env python3
"""Asks a machine for its health with a gRPC implementation that is not Outlast's (Python's grpcio).

    health_client.py [--program target/debug/outlast] [--venv target/health-client-venv]

Starts an installation of its own with two machines, reads the port that one of them wrote, and looks who is answered
there and who is not: the operator is; no certificate, a machine's certificate, one of another authority, an older
TLS and plain text are not. Prints a line for each check and at the end `N passed, N failed`; ends with 1 if one
failed. Where grpcio cannot be had it says so, and that nothing was checked.
"""

import argparse
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WANTED = ["grpcio==1.85.*", "grpcio-tools==1.85.*"]
# Seconds that nothing here takes, however slow the machine is.
PATIENCE = 180
# The standard service as the gRPC project publishes it; not taken from the product.
STANDARD = """
syntax = "proto3";
package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
service Health {
  rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
  rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
}
"""


def with_grpcio(venv):
    """Goes on in an environment that has grpcio; makes it once. Returns only where it is there."""
    try:
        import grpc_tools  # noqa: F401

        return None
    except ImportError:
        pass
    python = venv / "bin/python"
    if Path(sys.prefix).resolve() == venv.resolve():
        return "grpcio is not in its own environment"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(venv)],
            [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", *WANTED],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"{command[1:4]}: {error}"
            if done.returncode:
                return (done.stderr or done.stdout).strip().splitlines()[-1][:200]
        (venv / "complete").touch()
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


class Installation:
    """A data directory of its own and what runs there."""

    def __init__(self, program, work):
        self.program, self.home, self.work = program, work / "h", work
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        self.env |= {"OUTLAST_HOME": str(self.home), "XDG_CONFIG_HOME": str(work / "c")}

    def call(self, *arguments):
        done = subprocess.run(
            [self.program, *arguments], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
        )
        if done.returncode:
            raise RuntimeError(f"outlast {' '.join(arguments)}: {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()

    def machine(self):
        """A run that only sleeps, and its machine once that answers."""
        project = self.work / "project"
        project.mkdir(exist_ok=True)
        (project / "outlast.toml").write_text('[environment]\nkind = "none"\n')
        run = self.call("run", str(project), "-d", "--", "sleep", "1000000").strip()
        state = lambda: json.loads(self.call("status", run, "--json"))["run"]
        wait(f"{run} running", lambda: state()["phase"] == "running")
        return self.home / "machines" / state()["machine"]

    def end(self):
        try:
            for run in json.loads(self.call("status", "--json")):
                if not run["ended_ms"]:
                    self.call("destroy", run["id"], "-y")
            wait("the machines gone", lambda: not list((self.home / "machines").glob("[!.]*")))
        finally:
            self.call("controller", "stop")


def wait(what, look):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise RuntimeError(f"still not there after {PATIENCE} s: {what}")


def stubs(work):
    """The messages and services, compiled from the published files."""
    from grpc_tools import protoc

    (work / "standard.proto").write_text(STANDARD)
    out = work / "stubs"
    out.mkdir()
    for include, name in ((ROOT / "proto/proto", "outlast/v1/health.proto"), (work, "standard.proto")):
        arguments = ["protoc", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", name]
        if protoc.main(arguments):
            raise RuntimeError(f"{name} does not compile")
    sys.path.insert(0, str(out))
    import standard_pb2
    import standard_pb2_grpc
    from outlast.v1 import health_pb2, health_pb2_grpc

    return standard_pb2, standard_pb2_grpc, health_pb2, health_pb2_grpc


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, what, holds, told=""):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f"{'ok  ' if holds else 'FAIL'} {what}{f': {told}' if told else ''}", flush=True)


def check(ours, theirs, work, expect):
    import grpc

    standard, standard_rpc, health, health_rpc = stubs(work)
    mine, other = ours.machine(), ours.machine()
    theirs.call("controller", "start")
    keys = ours.home / "keys"
    root = (keys / "root.pem").read_bytes()
    pair = lambda folder, name: ((folder / f"{name}.key").read_bytes(), (folder / f"{name}.pem").read_bytes())
    operator = pair(keys, "operator")
    at = json.loads((mine / "health.json").read_text())["endpoint"]
    told = json.loads(ours.call("health", mine.name, "--json"))["endpoint"]
    expect("the controller names the port that the machine wrote", told == at, f"{told}, {at}")
    own_name = f"{mine.name}.machine.outlast.internal"
    hub_name = json.loads((ours.home / "hub.json").read_text())["hub"] + ".hub.outlast.internal"

    def channel(certificate, name=own_name, trusted=root):
        key, chain = certificate or (None, None)
        given = grpc.ssl_channel_credentials(trusted, key, chain)
        options = [("grpc.ssl_target_name_override", name), ("grpc.enable_retries", 0)]
        return grpc.secure_channel(at, given, options)

    def refused(what, open_channel, codes):
        """Every call must fail, in one of these ways."""
        with open_channel() as link:
            asked = standard.HealthCheckRequest()
            calls = {
                "Check": lambda: standard_rpc.HealthStub(link).Check(asked, timeout=PATIENCE),
                "Get": lambda: health_rpc.MachineHealthStub(link).Get(health.HealthRequest(), timeout=PATIENCE),
                "Watch": lambda: next(health_rpc.MachineHealthStub(link).Watch(health.HealthRequest(), timeout=PATIENCE)),
            }
            for name, call in calls.items():
                try:
                    expect(f"{what}: {name} is refused", False, f"answered {call()!r}"[:200])
                except grpc.RpcError as error:
                    expect(f"{what}: {name} is refused", error.code() in codes, error.code().name)

    with channel(operator) as link:
        asks, detailed = standard_rpc.HealthStub(link), health_rpc.MachineHealthStub(link)
        for name in ("", "outlast.v1.MachineHealth"):
            status = asks.Check(standard.HealthCheckRequest(service=name), timeout=PATIENCE).status
            expect(f"the operator: Check {name!r} is SERVING", status == standard.HealthCheckResponse.SERVING)
        try:
            asks.Check(standard.HealthCheckRequest(service="nothing"), timeout=PATIENCE)
            expect("the operator: Check of an unknown service is NOT_FOUND", False)
        except grpc.RpcError as error:
            missing = error.code() == grpc.StatusCode.NOT_FOUND
            expect("the operator: Check of an unknown service is NOT_FOUND", missing, error.code().name)
        first = next(asks.Watch(standard.HealthCheckRequest(), timeout=PATIENCE)).status
        expect("the operator: the standard Watch begins with SERVING", first == standard.HealthCheckResponse.SERVING)
        report = detailed.Get(health.HealthRequest(), timeout=PATIENCE)
        expect("the operator: Get is of this machine", report.machine_id == mine.name, report.machine_id)
        began, seen = time.monotonic(), []
        try:
            for report in detailed.Watch(health.HealthRequest(), timeout=PATIENCE):
                seen.append((report.machine_id, report.sample.boottime_ms))
                # The first may be from before the first sample.
                if len(seen) == 2:
                    break
        except grpc.RpcError as error:
            seen.append(error.code().name)
        good = len(seen) == 2 and {name for name, _ in seen} == {mine.name} and seen[0][1] < seen[1][1]
        expect("the operator: Watch yields a second, newer report", good, f"after {time.monotonic() - began:.1f} s")

    code = grpc.StatusCode
    no_tls = {code.UNAVAILABLE}
    refused("no certificate", lambda: channel(None), no_tls)
    refused("another machine's certificate", lambda: channel(pair(other, "machine")), {code.PERMISSION_DENIED})
    refused("its own certificate", lambda: channel(pair(mine, "machine")), {code.PERMISSION_DENIED})
    stranger = pair(theirs.home / "keys", "operator")
    refused("an operator of another authority", lambda: channel(stranger), no_tls)
    refused("plain text", lambda: grpc.insecure_channel(at), no_tls)
    refused("who looks for a controller there", lambda: channel(operator, name=hub_name), no_tls)
    trusts = (theirs.home / "keys/root.pem").read_bytes()
    refused("who trusts another authority", lambda: channel(operator, trusted=trusts), no_tls)
    expect("TLS 1.2 is refused", *old_tls(at, keys, own_name))
    with channel(operator) as link:
        status = standard_rpc.HealthStub(link).Check(standard.HealthCheckRequest(), timeout=PATIENCE).status
        expect("after all that it serves", status == standard.HealthCheckResponse.SERVING)


def old_tls(at, keys, name):
    """A good certificate, but nothing newer than TLS 1.2."""
    context = ssl.create_default_context(cafile=str(keys / "root.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(keys / "operator.pem", keys / "operator.key")
    host, port = at.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), PATIENCE) as raw, context.wrap_socket(raw, server_hostname=name):
            return False, "connected"
    except (ssl.SSLError, ConnectionError) as error:
        return True, type(error).__name__


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "target/debug/outlast"))
    parser.add_argument("--venv", default=str(ROOT / "target/health-client-venv"))
    given = parser.parse_args()
    why = with_grpcio(Path(given.venv).absolute())
    if why:
        print(f"skipped health_client: grpcio cannot be had here ({why})")
        print("0 passed, 0 failed")
        return 0
    # The library reports each refusal on stderr as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    expect = Checks()
    work = Path(tempfile.mkdtemp(prefix="olhc", dir="/tmp"))
    program = str(Path(given.program).absolute())
    (work / "a").mkdir()
    (work / "b").mkdir()
    ours, theirs = Installation(program, work / "a"), Installation(program, work / "b")
    try:
        check(ours, theirs, work, expect)
    except Exception as error:  # noqa: BLE001 - told as a failed check, and what runs is ended all the same
        expect("the rig", False, f"{type(error).__name__}: {error}")
    finally:
        for each in (ours, theirs):
            if each.home.exists():
                try:
                    each.end()
                except Exception as error:  # noqa: BLE001
                    expect("nothing is left behind", False, str(error))
        shutil.rmtree(work, ignore_errors=True)
    print(f"{expect.passed} passed, {expect.failed} failed")
    return 1 if expect.failed or not expect.passed else 0


if __name__ == "__main__":
    sys.exit(main())
