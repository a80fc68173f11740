"""The fake Vast under the vendor's own client, `vastai` 1.9.1 from PyPI.

    python3 official.py --program target/debug/fake-vast --venv target/tmp/vastai

Starts the fake and runs the real commands with a home of their own. The client ends with 0 on errors, so what is
checked is what it printed, what it sent (the fake's journal, against requests that were captured from it), and what
the fake holds afterwards, money included. The fake's clock moves only when it is told to. One line for each check
that failed, a table of commands at the end. 77: the client cannot be installed here.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from client import with_package  # noqa: E402

import machines
import market
from ends import KEY, VERSION, WANTED, Client, Fake
from troubles import troubles

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJUnnamedKeyOfTheRigThatOpensNothing rig"
CREATE = {
    "client_id": "me", "image": "pytorch/pytorch:latest", "env": {"FOO": "bar", "-p 8080:8080": "1"}, "price": None,
    "disk": 20.0, "label": "run-1", "extra": None, "onstart": "echo hi", "image_login": None, "python_utf8": False,
    "lang_utf8": False, "use_jupyter_lab": False, "jupyter_dir": None, "force": False, "cancel_unavail": True,
    "template_hash_id": None, "user": None, "runtype": "ssh_direc ssh_proxy",
}
HOUR = 3600


class Checks:
    """What held and what did not."""

    def __init__(self) -> None:
        self.held, self.failed, self.table = 0, [], []

    def that(self, name: str, held: bool, why: object = "") -> None:
        if held:
            self.held += 1
        else:
            self.failed.append(name)
            print(f"FAILED {name}: {why}", flush=True)


class Rig:
    """One fake, one client, one tally."""

    def __init__(self, fake: Fake, client: Client) -> None:
        self.fake, self.client, self.checks = fake, client, Checks()

    def command(self, words: list, sends: list, says: str = "", key: str = KEY):
        """Runs one command: what it sends, as (method, path, body), and a text that it prints."""
        # Longer than any interval: limits have a part of their own.
        self.fake.advance(61)
        self.fake.calls()
        said = self.client.run(*words, key=key)
        calls = self.fake.calls()
        sent = [(call["method"], call["path"], call["body"]) for call in calls]
        name = " ".join(word if len(word) < 60 else word[:20] + "..." for word in words)
        self.checks.that(f"{name}: sends", sent == sends, f"sent {sent}, wanted {sends}; {said}")
        self.checks.that(f"{name}: prints", says in said.out + said.err, f"wanted {says!r}; {said}")
        self.checks.table.append((name, [call["status"] for call in calls], said.code))
        self.queries = [call["query"] for call in calls]
        return said

    def offer(self, **fields) -> int:
        """An offer made to measure."""
        number = 900 + len(self.fake.state()["machines"])
        given = {
            "machine_id": number, "gpu_name": "RTX 4090", "num_gpus": 1, "price": 0.36, "min_bid": 0.1,
            "storage_cost": 0.72, "storage_cost_stopped": 1.44, "disk_space": 500, "direct_port_count": 9,
            "verification": "verified", "duration": 90 * 86400, **fields,
        }
        self.fake.control("offers", machines=[given])
        return self.ask_of(number)

    def ask_of(self, machine: int) -> int:
        return next(row["ask"] for row in self.fake.state()["machines"] if row["id"] == machine)


def account(rig: Rig) -> None:
    """The first call ever asks for the role; keys come before creates."""
    user = ("GET", "/api/v0/users/current", None)
    said = rig.command(["show", "user", "--raw"], [user, user])
    rig.checks.that("show user: credit", said.json["credit"] == 100.0, said)
    rig.command(["show", "user"], [user], "user@example.test")
    rig.command(["create", "ssh-key", PUBLIC], [("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC})], "ssh-key created")
    said = rig.command(["show", "ssh-keys", "--raw"], [("GET", "/api/v0/ssh/", None)])
    rig.checks.that("show ssh-keys: the key", [row["public_key"] for row in said.json] == [PUBLIC], said)
    rig.command(["show", "env-vars", "--raw"], [("GET", "/api/v0/secrets/", None)], "{}")


def creating(rig: Rig) -> tuple:
    """On demand, as a bid, several at once, and by searching."""
    ask = rig.offer()
    words = ["create", "instance", str(ask), "--image", "pytorch/pytorch:latest", "--disk", "20", "--ssh", "--direct",
             "--env", "-e FOO=bar -p 8080:8080", "--onstart-cmd", "echo hi", "--label", "run-1", "--cancel-unavail", "--raw"]
    said = rig.command(words, [("PUT", f"/api/v0/asks/{ask}/", CREATE)])
    first = said.json["new_contract"]
    rig.checks.that("create: as asked", rig.fake.instance(first)["label"] == "run-1", said)
    ask = rig.offer()
    words = ["create", "instance", str(ask), "--image", "pytorch/pytorch:latest", "--disk", "20", "--bid_price", "0.15", "--raw"]
    body = {**CREATE, "env": {}, "price": 0.15, "label": None, "onstart": None, "cancel_unavail": False, "runtype": "ssh"}
    second = rig.command(words, [("PUT", f"/api/v0/asks/{ask}/", body)]).json["new_contract"]
    rig.checks.that("create: a bid", rig.fake.instance(second)["claim"] == "bid")
    asks = [rig.offer(), rig.offer()]
    words = ["create", "instances", *map(str, asks), "--image", "x"]
    body = {**body, "image": "x", "price": None, "disk": 10, "ids": asks}
    rig.command(words, [("POST", "/api/v0/asks/bulk/", body)], "Started. {")
    made = [row["ask"] for row in rig.fake.state()["instances"] if row["image"] == "x"]
    rig.checks.that("create instances: two", sorted(made) == sorted(asks), made)
    rig.offer(gpu_name="H200", price=0.01, num_gpus=2)
    words = ["launch", "instance", "-g", "H200", "-n", "2", "-i", "x", "-d", "16", "--label", "launched", "--raw"]
    rig.fake.advance(61)
    rig.fake.calls()
    said = rig.client.run(*words)
    calls = rig.fake.calls()
    launched = said.json.get("new_contract")
    rig.checks.table.append((" ".join(words), [call["status"] for call in calls], said.code))
    rig.checks.that("launch instance: one call", [call["path"] for call in calls] == ["/api/v0/launch_instance/"], calls)
    rig.checks.that("launch instance: made", rig.fake.instance(launched)["label"] == "launched", said)
    return first, second


def looking(rig: Rig, first: int) -> None:
    """Lists, filters, pages, one instance and its address."""
    page = ("GET", "/api/v1/instances/", None)
    said = rig.command(["show", "instances", "--raw"], [page])
    query = {"select_filters": "{}", "order_by": '[{"col": "id", "dir": "asc"}]', "limit": "25"}
    rig.checks.that("show instances: query", rig.queries == [query], rig.queries)
    rig.checks.that("show instances: all of them", len(said.json) == 5, said)
    row = next(row for row in said.json if row["id"] == first)
    rig.checks.that("show instances: runs", row["actual_status"] == "running" and row["intended_status"] == "running", row)
    rig.checks.that("show instances: environment", row["extra_env"] == {"FOO": "bar", "-p 8080:8080": "1"}, row["extra_env"])
    filters = ("GET", "/api/v0/instances/filters/", None)
    said = rig.command(["show", "instances", "--no-color"], [filters, page], "Total: 5 instances")
    rig.checks.that("show instances: table", "run-1" in said.out and "launched: 1" in said.out, said)
    said = rig.command(["show", "instances", "--label", "run-1", "--raw"], [page])
    rig.checks.that("show instances: by label", [row["id"] for row in said.json] == [first], said)
    said = rig.command(["show", "instances", "--status", "exited", "-q"], [page])
    rig.checks.that("show instances: by status", said.out.strip() == "", said)
    seen, token = [], []
    while True:
        said = rig.command(["show", "instances", "--limit", "2", *token, "--raw"], [page])
        seen += [row["id"] for row in said.json["instances"]]
        if not said.json["next_token"]:
            break
        token = ["--next-token", said.json["next_token"]]
    rig.checks.that("show instances: pages", len(seen) == 5 and len(set(seen)) == 5, seen)
    one = ("GET", f"/api/v0/instances/{first}/", None)
    said = rig.command(["show", "instance", str(first), "--raw"], [one])
    rig.checks.that("show instance: query", rig.queries == [{"owner": "me"}], rig.queries)
    rig.checks.that("show instance: row", said.json["label"] == "run-1" and said.json["dph_base"] == 0.36, said)
    port = said.json["ports"]["22/tcp"][0]["HostPort"]
    rig.command(["show", "instance", str(first)], [one], "RTX_4090")
    said = rig.command(["ssh-url", str(first)], [page])
    rig.checks.that("ssh-url", said.out.strip().endswith(f":{port}") and said.out.startswith("ssh://root@203.0.113."), said)
    rig.command(["scp-url", str(first)], [], "scp://root@")
    rig.command(["show", "instance", "5", "--raw"], [("GET", "/api/v0/instances/5/", None)], '"instances": null')


def changing(rig: Rig, first: int, second: int) -> None:
    """Label, stop, start, bid, reboot, recycle, update."""
    def put(path: str, body: dict) -> list:
        return [("PUT", path, body)]

    own = f"/api/v0/instances/{first}/"
    status = lambda number: rig.fake.instance(number)["status"]
    rig.command(["label", "instance", str(first), "foo"], put(own, {"label": "foo"}), f"label for {first} set to foo")
    rig.command(["stop", "instance", str(first)], put(own, {"state": "stopped"}), f"stopping instance {first}")
    rig.checks.that("stop instance: stopped", status(first) == "stopped", status(first))
    rig.command(["start", "instance", str(first)], put(own, {"state": "running"}), f"starting instance {first}")
    rig.fake.advance(61)
    rig.checks.that("start instance: runs", status(first) == "running", status(first))
    for verb, state in (("stop", "stopped"), ("start", "running")):
        rig.command([verb, "instances", str(first), str(second)],
                    put("/api/v0/instances/", {"state": state, "ids": [first, second]}))
        rig.fake.advance(61)
        rig.checks.that(f"{verb} instances: both", status(first) == status(second) == state)
    rig.command(["reboot", "instance", str(first)], put(f"/api/v0/instances/reboot/{first}/", {}), "Rebooting instance")
    rig.fake.advance(61)
    rig.command(["recycle", "instance", str(first)], put(f"/api/v0/instances/recycle/{first}/", {}), "Recycling instance")
    rig.fake.advance(61)
    rig.command(["change", "bid", str(second), "--price", "0.2"],
                put(f"/api/v0/instances/bid_price/{second}/", {"client_id": "me", "price": 0.2}), "bid price changed")
    rig.checks.that("change bid: price", rig.fake.instance(second)["rates"]["gpu"] == 0.2)
    rig.command(["update", "instance", str(first), "--image", "foo/bar"],
                put(f"/api/v0/instances/update_template/{first}/", {"id": first, "image": "foo/bar"}), "updated successfully")
    rig.checks.that("update instance: image", rig.fake.instance(first)["image"] == "foo/bar")
    rig.fake.advance(61)


def reaching(rig: Rig, first: int, second: int) -> None:
    """Logs, commands, copies, keys, snapshots, deposits."""
    rig.fake.control("options", result_ms=0)
    rig.fake.control(f"instances/{first}", log="one\ntwo\nthree\n")
    said = rig.command(["logs", str(first), "--tail", "2"],
                       [("PUT", f"/api/v0/instances/request_logs/{first}/", {"tail": "2"})], "two\nthree")
    rig.checks.that("logs: the tail only", "one" not in said.out, said)
    # 1.9.1 takes the text of the answer for its JSON.
    rig.command(["execute", str(first), "ls -l /"],
                [("PUT", f"/api/v0/instances/command/{first}/", {"command": "ls -l /"})], "AttributeError")
    rig.command(["execute", str(first), "reboot"],
                [("PUT", f"/api/v0/instances/command/{first}/", {"command": "reboot"})], "Invalid command given.")
    copied = {"client_id": "me", "src_id": str(first), "dst_id": str(second), "src_path": "/workspace/", "dst_path": "/workspace/"}
    rig.command(["copy", f"{first}:/workspace/", f"{second}:/workspace/"],
                [("PUT", "/api/v0/commands/copy_direct/", copied)], "copying")
    instance = f"/api/v0/instances/{first}/ssh/"
    rig.command(["attach", "ssh", str(first), PUBLIC + "-2"], [("POST", instance, {"ssh_key": PUBLIC + "-2"})], "True")
    key = rig.fake.instance(first)["keys"][-1]["id"]
    rig.command(["detach", "ssh", str(first), str(key)], [("DELETE", f"{instance}{key}/", {})], "True")
    key = rig.fake.state()["ssh_keys"][0]["id"]
    rig.command(["update", "ssh-key", str(key), PUBLIC + "-3"],
                [("PUT", f"/api/v0/ssh/{key}/", {"id": key, "ssh_key": PUBLIC + "-3"})], "True")
    rig.command(["delete", "ssh-key", str(key)], [("DELETE", f"/api/v0/ssh/{key}/", {})], "True")
    snapshot = {"id": str(first), "container_registry": "docker.io", "personal_repo": "me/r", "docker_login_user": "u",
                "docker_login_pass": "p", "pause": "true"}
    rig.command(["take", "snapshot", str(first), "--repo", "me/r", "--docker_login_user", "u", "--docker_login_pass", "p"],
                [("POST", f"/api/v0/instances/take_snapshot/{first}/", snapshot)], "Snapshot request sent successfully")
    rig.command(["prepay", "instance", str(first), "5"],
                [("PUT", f"/api/v0/instances/prepay/{first}/", {"amount": 5.0})], "applying $5.0 credits")
    said = rig.command(["show", "deposit", str(first)], [("GET", f"/api/v0/instances/balance/{first}/", None)])
    rig.checks.that("show deposit: the five dollars", said.json["refundable_deposit"] == 5.0, said)


def paying(rig: Rig) -> None:
    """One instance from its creation to its end, by the vendor's own charges."""
    ask = rig.offer()
    words = ["create", "instance", str(ask), "--image", "x", "--disk", "10", "--label", "billed", "--raw"]
    number = rig.client.run(*words).json["new_contract"]
    # 22 s until it runs, two hours of running, one hour stopped; 0.36 $ of GPUs, 0.01 or 0.02 $ of disk an hour.
    rig.fake.advance(22 + 2 * HOUR)
    rig.client.run("stop", "instance", str(number))
    rig.fake.advance(HOUR)
    rig.fake.control(f"instances/{number}", traffic={"up": 10**9, "down": 0})
    up = rig.fake.instance(number)["rates"]["up_gigabyte"]
    said = rig.command(["destroy", "instance", str(number), "-y"], [("DELETE", f"/api/v0/instances/{number}/", {})],
                       f"destroying instance {number}")
    want = 2 * 0.36 + 0.01 * (2 + 22 / HOUR) + 0.02 * (1 + 61 / HOUR) + up
    rig.fake.advance(5 * HOUR)
    has = rig.fake.instance(number)["cost"]["total"]
    rig.checks.that("charges: as computed by hand, and not a cent after the end", abs(has - want) < 1e-6, (has, want))
    now = rig.fake.state()["now_ms"] // 1000
    window = ["-s", str(now - 7 * 86400), "-e", str(now)]
    charges = [("GET", "/api/v0/charges/", None)]
    said = rig.command(["show", "invoices-v1", "--charges", *window, "-l", "100", "--raw"], charges)
    days = f'{{"day": {{"gte": {window[1]}, "lte": {window[3]}}}}}'
    query = {"select_filters": days, "latest_first": "false", "limit": "100", "format": "table"}
    rig.checks.that("show invoices-v1: query", rig.queries == [query], rig.queries)
    row = next(row for row in said.json["results"] if row["source"] == f"instance-{number}")
    rig.checks.that("show invoices-v1: amount", abs(row["amount"] - want) < 0.0006, (row, want))
    rig.command(["show", "invoices-v1", "--charges", *window, "--no-color"], charges, f"${want:.3f}")
    rig.command(["show", "invoices-v1", "--charges", *window, "-f", "tree", "-v", "--no-color"], charges, "bandwidth")
    rig.command(["show", "invoices-v1", "--charges", "-ct", "volume", *window, "--no-color"], charges, "No results found")


def ending(rig: Rig, first: int, second: int) -> None:
    """Destroying one and many; what is gone costs nothing more."""
    rig.command(["destroy", "instance", str(first), "-y"], [("DELETE", f"/api/v0/instances/{first}/", {})], f"destroying instance {first}")
    rig.command(["show", "instance", str(first)], [("GET", f"/api/v0/instances/{first}/", None)], "not found or no longer exists")
    rest = [row["id"] for row in rig.fake.state()["instances"]]
    rig.command(["destroy", "instances", *map(str, rest), "-y"], [("DELETE", "/api/v0/instances/", {"instance_ids": rest})])
    rig.checks.that("destroy instances: none left", rig.fake.state()["instances"] == [])
    rig.command(["destroy", "instance", str(second), "-y"], [("DELETE", f"/api/v0/instances/{second}/", {})], "404")
    spent = rig.fake.state()["spent"]
    rig.fake.advance(1000 * HOUR)
    rig.checks.that("destroy: nothing more is spent", rig.fake.state()["spent"] == spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the fake")
    parser.add_argument("--venv", type=pathlib.Path, required=True, help="where the client is or shall be")
    parser.add_argument("--short", action="store_true", help="leave out most searches and the faults, which take half the time")
    parser.add_argument("--table", action="store_true", help="print every command and what was answered")
    options = parser.parse_args()
    program = with_package(options.venv.resolve(), WANTED).with_name("vastai")
    fake = Fake(options.program.resolve(), "--offers", "600", "--seed", "11")
    client = Client(program, fake.url)
    rig = Rig(fake, client)
    try:
        account(rig)
        if not options.short:
            market.check(fake, client, rig.checks.that)
        first, second = creating(rig)
        fake.advance(61)
        looking(rig, first)
        changing(rig, first, second)
        reaching(rig, first, second)
        paying(rig)
        ending(rig, first, second)
        if not options.short:
            troubles(rig)
    finally:
        fake.close()
    more = machines.check(options.program.resolve(), program, rig.checks.that)
    if options.table:
        for name, statuses, code in rig.checks.table:
            print(f"  {' '.join(map(str, statuses)) or '-':12} exit {code}  {name}")
    checks = rig.checks
    if checks.failed:
        print(f"vast: {len(checks.failed)} of {checks.held + len(checks.failed)} checks failed")
        sys.exit(1)
    print(f"vast: {checks.held} checks of {client.runs + more} commands of the official client {VERSION} held")


if __name__ == "__main__":
    main()
