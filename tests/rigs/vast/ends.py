"""The two ends of the rig: the fake Vast as a process, and the official client in an environment of its own."""

import json
import os
import pathlib
import subprocess
import tempfile
import urllib.error
import urllib.request

VERSION = "1.9.1"
WANTED = f"vastai=={VERSION}"
KEY = "a-key-of-the-rig"
# Whatever proxy is set for the world is none for loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Fake:
    """The fake, with a clock that only moves when it is told to."""

    def __init__(self, program: pathlib.Path, *more: str) -> None:
        environment = {**os.environ, "FAKE_VAST_API_KEY": KEY}
        self.process = subprocess.Popen(
            [str(program), "--until-stdin-closes", "--speed", "0", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the fake did not start: {program}")
        self.url = json.loads(line)["url"]
        self.seen = -1

    def ask(self, method: str, path: str, body=None, key: str = KEY):
        """An answer, whatever its status: status, content type, text."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {key}")
        try:
            with DIRECT.open(request, timeout=180) as answer:
                return answer.status, answer.headers.get("Content-Type"), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Content-Type"), error.read().decode()

    def control(self, what: str, **body) -> None:
        status, _, text = self.ask("POST", f"/control/{what}", body)
        if status != 200:
            raise AssertionError(f"/control/{what}: {status} {text}")

    def advance(self, seconds: float) -> None:
        self.control("advance", ms=int(seconds * 1000))

    def state(self) -> dict:
        return json.loads(self.ask("GET", "/control/state")[2])

    def instance(self, number: int) -> dict:
        state = self.state()
        return next(row for row in state["instances"] + state["ended"] if row["id"] == number)

    def fault(self, on: str, times: int = 1, **fault) -> None:
        self.control("faults", add=[{"on": [on], "times": times, "fault": fault}])

    def calls(self) -> list:
        """The calls since the last time, the fake's own result files apart."""
        journal = json.loads(self.ask("GET", f"/control/journal?after={self.seen}" if self.seen >= 0 else "/control/journal")[2])
        if journal["calls"]:
            self.seen = journal["calls"][-1]["seq"]
        return [call for call in journal["calls"] if call["op"] != "result"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=180)


class Said:
    """What one run of the client printed."""

    def __init__(self, result: subprocess.CompletedProcess) -> None:
        self.out, self.err, self.code = result.stdout, result.stderr, result.returncode

    @property
    def json(self):
        """What stands on standard output, after a line or two of talk."""
        start = min((at for at in (self.out.find("{"), self.out.find("[")) if at >= 0), default=-1)
        if start < 0:
            raise AssertionError(f"no JSON: {self}")
        return json.JSONDecoder().raw_decode(self.out[start:])[0]

    def __str__(self) -> str:
        return f"exit {self.code}, stdout {self.out[-1500:]!r}, stderr {self.err[-1500:]!r}"


class Client:
    """The official client, with a home of its own."""

    def __init__(self, program: pathlib.Path, url: str) -> None:
        self.program, self.url = program, url
        self.folder = tempfile.TemporaryDirectory(prefix="outlast-vast.")
        self.runs = 0
        home = self.folder.name
        self.environment = {
            "PATH": os.environ.get("PATH", ""), "HOME": home, "XDG_CONFIG_HOME": f"{home}/config",
            "XDG_CACHE_HOME": f"{home}/cache", "XDG_DATA_HOME": f"{home}/data", "VASTAI_NO_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "COLUMNS": "400", "LINES": "200",
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", "CI": "1",
        }

    def run(self, *arguments: str, key: str = KEY) -> Said:
        self.runs += 1
        command = [str(self.program), *arguments, "--url", self.url, "--api-key", key]
        return Said(subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=self.environment, timeout=300,
            cwd=self.folder.name,
        ))
