"""The fake metadata services under independent clients.

    python3 run.py --program target/debug/fake-metadata --venv target/tmp/ec2-metadata

EC2's is asked by `ec2-metadata` 3.0.0 from PyPI; Google's and Azure's by the requests of their documents, sent by
Python's own library, since no client of theirs is packaged. 77: the client cannot be installed here.
"""

import argparse
import http.client
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from client import with_package  # noqa: E402

VERSION = "3.0.0"
JUDGE = """
import json, sys
from ec2_metadata import EC2Metadata
port = sys.argv[1]
client = EC2Metadata()
client.service_url = f"http://127.0.0.1:{port}/latest/"
client.dynamic_url, client.metadata_url = f"{client.service_url}dynamic/", f"{client.service_url}meta-data/"
for line in sys.stdin:
    client.clear_all() if line.strip() == "fresh" else None
    try:
        action = client.spot_instance_action
        said = {"action": action and action.action, "time": action and action.time.isoformat(),
                "id": client.instance_id, "cycle": client.instance_life_cycle, "region": client.region}
    except Exception as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)
    client.__dict__.pop("spot_instance_action", None)
"""


class Fake:
    """The services, and what is said to them."""

    def __init__(self, program: pathlib.Path) -> None:
        self.process = subprocess.Popen(
            [program, "--until-stdin-closes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = json.loads(self.process.stdout.readline())["port"]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        line.request(method, path, json.dumps(body) if body is not None else None, names)
        answer = line.getresponse()
        said = answer.status, answer.read().decode(errors="replace"), answer.getheader("ETag")
        line.close()
        return said

    def control(self, path: str, **body: object) -> dict:
        status, text, _ = self.ask("POST", f"/control/{path}", body)
        assert status == 200, text
        return json.loads(text)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    python = with_package(arguments.venv.resolve(), f"ec2-metadata=={VERSION}")
    fake, checks = Fake(arguments.program), []

    def check(name: str, held: bool, why: object = "") -> None:
        checks.append(bool(held))
        if not held:
            print(f"FAILED {name}: {why}", flush=True)

    judge = subprocess.Popen([python, "-c", JUDGE, str(fake.port)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def judged(word: str = "again") -> dict:
        print(word, file=judge.stdin, flush=True)
        return json.loads(judge.stdout.readline())

    quiet = judged()
    check("no notice", quiet.get("action") is None and "error" not in quiet, quiet)
    check("the rest", (quiet.get("id"), quiet.get("cycle"), quiet.get("region")) ==
          ("i-0123456789abcdef0", "spot", "eu-west-1"), quiet)
    at = fake.control("notice", service="ec2", action="terminate", in_ms=120_000)["action"]["at_ms"]
    told = judged()
    import datetime
    wanted = datetime.datetime.fromtimestamp(at // 1000, datetime.timezone.utc)
    check("a notice", told.get("action") == "terminate", told)
    check("its time", told.get("time", "").startswith(wanted.strftime("%Y-%m-%dT%H:%M:%S")), (told, wanted))
    fake.control("tokens")
    check("a token that ran out", "401" in judged().get("error", ""), told)
    check("a fresh token", judged("fresh").get("action") == "terminate")
    fake.control("clear", service="ec2")
    check("taken back", judged().get("action") is None)

    flavor = {"Metadata_Flavor": "Google"}
    path = "/computeMetadata/v1/instance/preempted"
    check("google wants its header", fake.ask("GET", path)[0] == 403)
    status, text, tag = fake.ask("GET", path, **flavor)
    check("google: none", (status, text) == (200, "FALSE") and tag, (status, text, tag))
    late = fake.ask("GET", f"{path}?wait_for_change=true&timeout_sec=1&last_etag={tag}", **flavor)
    check("google: a wait ends", late[:2] == (200, "FALSE"), late)
    fake.control("notice", service="gce", preempted=True)
    check("google: preempted", fake.ask("GET", path, **flavor)[1] == "TRUE")
    check("google: maintenance", fake.ask("GET", path.replace("preempted", "maintenance-event"), **flavor)[1] == "NONE")

    events = "/metadata/scheduledevents?api-version=2020-07-01"
    check("azure wants its header", fake.ask("GET", events)[0] == 400)
    check("azure: none", json.loads(fake.ask("GET", events, Metadata="true")[1])["Events"] == [])
    fake.control("notice", service="azure", type="Preempt", id="E-1", in_ms=600_000)
    one = json.loads(fake.ask("GET", events, Metadata="true")[1])["Events"][0]
    check("azure: an event", (one["EventType"], one["EventStatus"]) == ("Preempt", "Scheduled"), one)
    check("azure: acknowledged", fake.ask("POST", events, {"StartRequests": [{"EventId": "E-1"}]}, Metadata="true")[0] == 200)
    one = json.loads(fake.ask("GET", events, Metadata="true")[1])["Events"][0]
    check("azure: begun", one["EventStatus"] == "Started", one)

    judge.stdin.close()
    fake.process.stdin.close()
    judge.wait(180)
    fake.process.wait(180)
    print(f"notice: {sum(checks)} of {len(checks)} checks of the fake metadata services hold; ec2-metadata {VERSION} judges EC2's")
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
