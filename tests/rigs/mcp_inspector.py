"""Speaks with `outlast mcp` by the protocol's own Inspector, which is written in TypeScript and shares nothing with it.

    python3 mcp_inspector.py --program target/debug/outlast --kept target/tmp/mcp-inspector

Each method over stdin and stdout and over HTTP, from a shell as a person who looks into a server would. Prints a line for
each check and at the end `N passed, N failed`; ends with 1 if one failed, and with 77 where there is no npm, or the
package cannot be installed.
"""

import argparse
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from client import CANNOT  # noqa: E402

WANTED = "@modelcontextprotocol/inspector@2.12.0"
passed = failed = 0


def check(what: str, holds: bool, told: object = "") -> None:
    global passed, failed
    if holds:
        passed += 1
        print(f"ok   {what}")
    else:
        failed += 1
        print(f"FAIL {what}: {told}")


def installed(kept: pathlib.Path) -> pathlib.Path:
    """The Inspector's program, installed if need be; ends with 77 where it cannot be had."""
    kept.mkdir(parents=True, exist_ok=True)
    ready, program = kept / "ready", kept / "node_modules" / ".bin" / "mcp-inspector"
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ready.exists() and ready.read_text() == WANTED):
            npm = shutil.which("npm")
            if npm is None:
                print("there is no npm here", file=sys.stderr)
                sys.exit(CANNOT)
            install = [npm, "install", "--prefix", str(kept), "--no-audit", "--no-fund", "--ignore-scripts", WANTED]
            try:
                subprocess.run(install, check=True, stdout=2, stdin=subprocess.DEVNULL, timeout=900)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{WANTED} cannot be installed: {error}", file=sys.stderr)
                sys.exit(CANNOT)
            ready.write_text(WANTED)
    return program


def settings(home: pathlib.Path) -> dict:
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    return {**keep, "HOME": str(home), "OUTLAST_HOME": str(home / "data")}


class Inspector:
    """One way to reach the server."""

    def __init__(self, program: pathlib.Path, where: str, target: list, project: pathlib.Path) -> None:
        self.program, self.where, self.target, self.project = program, where, target, project

    def said(self, method: str, *more: str) -> subprocess.CompletedProcess:
        command = [str(self.program), "--cli", *self.target, "--method", method, *more]
        return subprocess.run(
            command, cwd=self.project, env=settings(self.project), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=180,
        )

    def ask(self, method: str, *more: str) -> dict:
        said = self.said(method, *more)
        try:
            return json.loads(said.stdout)
        except ValueError:
            return {"cannot be read": said.stdout, "stderr": said.stderr, "exit": said.returncode}


def use(server: Inspector) -> None:
    where = server.where
    listed = server.said("tools/list", "--strict")
    check(f"{where}: the schemas of the tools are portable", listed.returncode == 0, listed.stderr)
    tools = server.ask("tools/list").get("tools", [])
    names = {tool["name"] for tool in tools}
    check(f"{where}: tools are listed", {"analyze", "list", "status", "logs", "why"} <= names, names)
    check(f"{where}: nothing that acts is", not names & {"run", "destroy", "fork", "resume", "stop"}, names)
    seen = server.ask("tools/call", "--tool-name", "analyze", "--tool-arg", 'paths=["a.jsonl"]')
    rows = seen.get("structuredContent", {}).get("rows", [{}])
    check(f"{where}: curves are judged", rows[0].get("last_step") == 399, seen)
    drawn = server.ask("tools/call", "--tool-name", "plot", "--tool-arg", 'paths=["a.jsonl"]')
    check(f"{where}: a tool of text alone is taken", "|" in drawn.get("content", [{}])[0].get("text", ""), drawn)
    wrong = server.ask("tools/call", "--tool-name", "stats", "--tool-arg", "path=nowhere.csv")
    text = wrong.get("content", [{}])[0].get("text", "")
    check(f"{where}: what is wrong has a cure", wrong.get("isError") is True and "cure: " in text, wrong)
    outside = server.ask("tools/call", "--tool-name", "stats", "--tool-arg", "path=/etc/passwd")
    check(f"{where}: files elsewhere are not read", outside.get("isError") is True, outside)
    prompts = server.ask("prompts/list").get("prompts", [])
    check(f"{where}: prompts are listed", "review" in {prompt["name"] for prompt in prompts}, prompts)
    prompt = server.ask("prompts/get", "--prompt-name", "review", "--prompt-args", "path=a.jsonl")
    check(f"{where}: a prompt is filled in", "a.jsonl" in json.dumps(prompt.get("messages")), prompt)
    resources = server.ask("resources/list")
    check(f"{where}: resources are listed", isinstance(resources.get("resources"), list), resources)
    templates = server.ask("resources/templates/list").get("resourceTemplates", [])
    check(f"{where}: templates are listed", any("files/" in one["uriTemplate"] for one in templates), templates)
    report = server.ask("resources/read", "--uri", "outlast://files/a.jsonl")
    check(f"{where}: a report is read", "a.jsonl" in report.get("contents", [{}])[0].get("text", ""), report)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("program", "kept"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    options = parser.parse_args()
    program, inspector = options.program.resolve(), installed(options.kept.resolve())
    with tempfile.TemporaryDirectory(prefix="outlast-inspector-") as work:
        project = pathlib.Path(work)
        lines = (json.dumps({"step": step, "loss": 2 / (step + 1)}) for step in range(400))
        (project / "a.jsonl").write_text("\n".join(lines) + "\n")
        home = f"OUTLAST_HOME={project / 'data'}"
        use(Inspector(inspector, "stdio", [str(program), "mcp", "-e", home, "--cwd", work], project))

        serve = [str(program), "mcp", "--http", "0"]
        server = subprocess.Popen(serve, cwd=project, env=settings(project), stderr=subprocess.PIPE, text=True)
        try:
            line = server.stderr.readline()
            found = re.search(r"at (http://127\.0\.0\.1:\d+/mcp); the token is in (.*)", line)
            check("http: it says where it is", found is not None, line)
            url, token = found[1], pathlib.Path(found[2]).read_text()
            without = Inspector(inspector, "http", [url, "--transport", "http"], project).said("tools/list")
            check("http: no token, no answer", without.returncode != 0 and "analyze" not in without.stdout, without)
            bearer = ["--header", f"Authorization: Bearer {token}"]
            use(Inspector(inspector, "http", [url, "--transport", "http", *bearer], project))
        finally:
            server.terminate()
            server.wait(timeout=60)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
