"""Speaks with `outlast mcp` by an implementation of the protocol that is not Outlast's: the official Python SDK.

    python3 mcp_client.py --venv DIR --program OUTLAST --home DIR --project DIR --run NAME

Over stdin and stdout and over HTTP, each with a client that begins with the handshake and with one that does without.
The project holds `a.jsonl`, a log of a training, and the run has ended. Prints a line for each check and at the end
`N passed, N failed`; ends with 1 if one failed, and with 77 where the SDK cannot be installed.
"""

import argparse
import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from client import with_package  # noqa: E402

SDK = "mcp==2.3.0"
passed = failed = 0


def check(what: str, holds: bool, told: object = "") -> None:
    global passed, failed
    if holds:
        passed += 1
        print(f"ok   {what}")
    else:
        failed += 1
        print(f"FAIL {what}: {told}")


def plain(result) -> dict:
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


async def use(client, where: str, options) -> None:
    from mcp import MCPError

    tools = plain(await client.list_tools())["tools"]
    names = {tool["name"] for tool in tools}
    check(f"{where}: tools are listed", {"analyze", "list", "status", "logs", "why"} <= names, names)
    check(f"{where}: nothing that acts is", not names & {"run", "destroy", "fork", "resume", "stop"}, names)
    schemas = all(t["inputSchema"]["type"] == "object" for t in tools)
    # Lines of a log and drawings have no other form than text.
    text = {t["name"] for t in tools if "outputSchema" not in t}
    check(f"{where}: every tool has schemas", schemas and text == {"logs", "plot"}, text)

    told = []

    async def progress(step, total, message) -> None:
        told.append(message)

    seen = plain(await client.call_tool("analyze", {"paths": ["a.jsonl"]}, progress_callback=progress))
    text, rows = seen["content"][0]["text"], seen["structuredContent"]["rows"]
    check(f"{where}: curves are judged", "a.jsonl" in text and rows[0]["last_step"] == 399, seen)
    drawn = plain(await client.call_tool("plot", {"paths": ["a.jsonl"]}))["content"][0]["text"]
    check(f"{where}: a tool of text alone is taken", "|" in drawn, drawn)
    check(f"{where}: progress is told", any("a.jsonl" in (message or "") for message in told), told)
    status = plain(await client.call_tool("status", {"run": options.run}))
    check(f"{where}: a run is shown", status["structuredContent"]["state"] == "SUCCEEDED", status)
    listed = plain(await client.call_tool("list", {"all": True}))["structuredContent"]
    check(f"{where}: runs are listed", listed["rows"][0]["run"] == options.run, listed)
    wrong = plain(await client.call_tool("status", {"run": "no-such"}))
    check(f"{where}: what is wrong has a cure", wrong["isError"] and "cure: " in wrong["content"][0]["text"], wrong)
    outside = plain(await client.call_tool("analyze", {"paths": ["/etc/passwd"]}))
    check(f"{where}: files elsewhere are not read", outside["isError"] and "--root" in outside["content"][0]["text"], outside)
    refused = plain(await client.call_tool("destroy", {"target": options.run}))
    check(f"{where}: a read-only server destroys nothing", refused["isError"], refused)
    try:
        await client.call_tool("no_such_tool", {})
        check(f"{where}: an unknown tool is an error", False)
    except MCPError as error:
        check(f"{where}: an unknown tool is an error", error.error.code == -32602, error)
    prompts = plain(await client.list_prompts())["prompts"]
    check(f"{where}: prompts are listed", {"diagnose", "review"} <= {p["name"] for p in prompts}, prompts)
    prompt = plain(await client.get_prompt("diagnose", {"run": options.run}))
    check(f"{where}: a prompt is filled in", options.run in prompt["messages"][0]["content"]["text"], prompt)
    resources = plain(await client.list_resources())["resources"]
    logs = [resource["uri"] for resource in resources if resource["uri"].endswith("/logs")]
    check(f"{where}: resources are listed", len(logs) == 1, resources)
    report = plain(await client.read_resource("outlast://files/a.jsonl"))["contents"][0]["text"]
    check(f"{where}: a report is read", "a.jsonl" in report, report)
    log = plain(await client.read_resource(logs[0]))["contents"][0]["text"]
    check(f"{where}: a log is read", "attempt 1" in log, log)


def settings(options) -> dict:
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    return {**keep, "HOME": str(options.project), "OUTLAST_HOME": str(options.home)}


async def stdio(options) -> None:
    from mcp import Client, StdioServerParameters

    for mode in ("legacy", "auto", "2026-07-28"):
        server = StdioServerParameters(
            command=str(options.program), args=["mcp"], env=settings(options), cwd=str(options.project)
        )
        from mcp.client.stdio import stdio_client

        async with Client(stdio_client(server), mode=mode) as client:
            check(f"stdio {mode}: version", bool(client.protocol_version), client.protocol_version)
            print(f"     stdio {mode}: {client.protocol_version}")
            await use(client, f"stdio {mode}", options)


PING = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()


def status_of(url: str, headers: dict, body: bytes = PING) -> int:
    usual = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, data=body, headers={**usual, **headers})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return direct.open(request, timeout=180).status
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, ConnectionError):
        # Refused while it was still being sent.
        return 413


async def http(options) -> None:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    command = [str(options.program), "mcp", "--http", "0"]
    server = subprocess.Popen(command, cwd=options.project, env=settings(options), stderr=subprocess.PIPE, text=True)
    try:
        line = server.stderr.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+/mcp); the token is in (.*)", line)
        check("http: it says where it is", found is not None, line)
        url, token = found[1], pathlib.Path(found[2]).read_text()
        check("http: the token is private", pathlib.Path(found[2]).stat().st_mode & 0o777 == 0o600)
        bearer = {"Authorization": f"Bearer {token}"}
        check("http: no token, no answer", status_of(url, {}) == 401)
        check("http: a wrong token, no answer", status_of(url, {"Authorization": "Bearer " + "0" * 64}) == 401)
        evil = status_of(url, {**bearer, "Origin": "http://evil.example"})
        check("http: a page of another origin is refused", evil == 403, evil)
        rebound = status_of(url, {**bearer, "Host": "evil.example"})
        check("http: another name for this computer is refused", rebound in (400, 403, 421), rebound)
        large = status_of(url, {**bearer, "X-Large": "x" * 2_000_000})
        check("http: headers have a bound", large in (400, 413, 431), large)
        hostile = {
            "no JSON": b"not json",
            "no text": b"\xff\xfe",
            "half of it": PING[:20],
            "deep": b"[" * 100_000,
            "a batch": b"[" + PING + b"]",
            "nothing": b"",
            "too much": b'{"a":"' + b"x" * (2 << 20) + b'"}',
        }
        for what, body in hostile.items():
            code = status_of(url, bearer, body)
            check(f"http: refused: {what}", 400 <= code < 500, code)
        for mode in ("legacy", "auto", "2026-07-28"):
            async with httpx2.AsyncClient(headers=bearer, trust_env=False, timeout=180) as inner:
                async with Client(streamable_http_client(url, http_client=inner), mode=mode) as client:
                    print(f"     http {mode}: {client.protocol_version}")
                    await use(client, f"http {mode}", options)
    finally:
        server.terminate()
        ended = server.wait(timeout=180)
    check("http: it ends when it is told to", ended == 0, ended)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    for name in ("program", "home", "project"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        python = with_package(options.venv, SDK)
        os.execv(python, [str(python), "-B", *sys.argv, "--inside"])
    asyncio.run(stdio(options))
    asyncio.run(http(options))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
