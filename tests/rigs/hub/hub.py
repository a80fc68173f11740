"""A small Hugging Face hub on loopback, for tests: repositories are directories, branches are files.

    python3 hub.py STATE

Below STATE, which must exist:

    repos/models/org/name/commits/<commit>/...   the files of a commit
    repos/models/org/name/refs/main              the commit of a branch
    repos/.../token                              who has this token may read it; without the file, everybody
    files/...                                    plain files at /files/..., for urls
    faults.json                                  what goes wrong: a list of {"match", "times", "do", ...}
    requests.jsonl                               what was asked, written here
    address                                      where it listens, written last

A fault is for requests whose path ends with `match` (and whose method is `method`, GET by default), `times` times:
`cut` ends the connection after `at` bytes of the answer, `hold` sends `at` bytes and waits until STATE/go is there,
`status` answers with `code` (and Retry-After `after`), `corrupt` changes the first byte, `long` sends a byte more
than announced, `size` announces `by` bytes more. Large files (16 KiB and more) are answered with a redirect to
another port, as the hub's are; a token that comes there is written down as a finding.
"""

import hashlib
import json
import pathlib
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATE = pathlib.Path(sys.argv[1])
LARGE = 16 << 10
LOCK = threading.Lock()


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def described(path: str, data: bytes) -> dict:
    told = {"path": path, "size": len(data), "oid": git_name(data)}
    if len(data) >= LARGE:
        told["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return told


def fault(method: str, path: str) -> dict:
    with LOCK:
        file = STATE / "faults.json"
        faults = json.loads(file.read_text()) if file.exists() else []
        for one in faults:
            if one.get("method", "GET") == method and path.endswith(one["match"]) and one.get("times", 1) > 0:
                one["times"] = one.get("times", 1) - 1
                fresh = STATE / "faults.fresh"
                fresh.write_text(json.dumps(faults))
                fresh.rename(file)
                return one
    return {}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        is_cdn = self.server.server_port == CDN.server_port
        asked = {"method": self.command, "path": path, "range": self.headers.get("Range"), "cdn": is_cdn,
                 "token": "Authorization" in self.headers, "agent": self.headers.get("User-Agent", "").split("/")[0]}
        with LOCK, open(STATE / "requests.jsonl", "a") as log:
            log.write(json.dumps(asked) + "\n")
        self.fault = fault(self.command, path)
        self.close_connection = True
        if self.fault.get("do") == "status":
            after = {"Retry-After": self.fault["after"]} if "after" in self.fault else {}
            return self.send(self.fault["code"], after, b"not now")
        parts = path.strip("/").split("/")
        if is_cdn or parts[0] == "files":
            file = STATE / path.strip("/")
            return self.send(200, {}, file.read_bytes()) if file.is_file() else self.send(404, {}, b"")
        if parts[0] == "api":
            return self.api(parts[1], parts[2:])
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        return self.resolve(kind, parts)

    def repository(self, kind: str, name: list):
        """Its directory, or None where the answer is given already."""
        where = STATE / "repos" / kind / "/".join(name)
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        token = where / "token"
        if not (where / "commits").is_dir():
            self.send(401 if not sent else 404, {"X-Error-Code": "RepoNotFound"}, b"")
        elif token.exists() and not sent:
            self.send(401, {"X-Error-Code": "GatedRepo"}, b"")
        elif token.exists() and sent != token.read_text():
            self.send(403, {"X-Error-Code": "GatedRepo"}, b"")
        else:
            return where
        return None

    def commit(self, where, revision: str):
        ref = where / "refs" / revision
        commit = ref.read_text().strip() if ref.is_file() else revision
        if (where / "commits" / commit).is_dir():
            return commit
        self.send(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        return None

    def api(self, kind: str, parts: list) -> None:
        at = next((n for n, part in enumerate(parts) if part in ("revision", "tree")), len(parts))
        where = self.repository(kind, parts[:at])
        commit = where and self.commit(where, "/".join(parts[at + 1:]) or "main")
        if not commit:
            return
        root = where / "commits" / commit
        files = [described(str(f.relative_to(root)), f.read_bytes()) for f in sorted(root.rglob("*")) if f.is_file()]
        if at < len(parts) and parts[at] == "tree":
            told = [{"type": "file", **file} for file in files]
        else:
            siblings = [{"rfilename": f["path"], "size": f["size"], "blobId": f["oid"],
                         **({"lfs": {**f["lfs"], "sha256": f["lfs"]["oid"]}} if "lfs" in f else {})} for f in files]
            told = {"id": "/".join(parts[:at]), "sha": commit, "private": False, "gated": False, "downloads": 0,
                    "likes": 0, "tags": [], "siblings": siblings}
        self.send(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def resolve(self, kind: str, parts: list) -> None:
        at = parts.index("resolve") if "resolve" in parts else len(parts)
        where = self.repository(kind, parts[:at])
        commit = where and self.commit(where, parts[at + 1])
        if not commit:
            return
        file = where / "commits" / commit / "/".join(parts[at + 2:])
        if not file.is_file():
            return self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"")
        data = file.read_bytes()
        head = {"X-Repo-Commit": commit, "ETag": f'"{git_name(data)}"'}
        if len(data) < LARGE:
            return self.send(200, head, data)
        head |= {"X-Linked-Size": len(data), "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                 "Location": f"http://127.0.0.1:{CDN.server_port}/{urllib.parse.quote(str(file.relative_to(STATE)))}"}
        self.send(302, head, b"")

    def send(self, status: int, headers: dict, data: bytes) -> None:
        total, begin, do = len(data), 0, self.fault.get("do")
        if do == "corrupt" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        asked = self.headers.get("Range", "")
        if status == 200 and asked.startswith("bytes="):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            if begin >= total:
                status, headers, data = 416, {**headers, "Content-Range": f"bytes */{total}"}, b""
            else:
                status, data = 206, data[begin:]
                headers = {**headers, "Content-Range": f"bytes {begin}-{total - 1}/{total}"}
        if do == "long":
            data += b"!"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(data) + (self.fault.get("by", 0) if do == "size" else 0)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if do in ("cut", "hold"):
                self.wfile.write(data[: self.fault["at"]])
                self.wfile.flush()
                if do == "cut":
                    return
                (STATE / "held").touch()
                while not (STATE / "go").exists():
                    time.sleep(0.02)
                data = data[self.fault["at"]:]
            self.wfile.write(data)
        except OSError:
            pass


MAIN = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
CDN = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
for server in (MAIN, CDN):
    server.daemon_threads = True
threading.Thread(target=CDN.serve_forever, daemon=True).start()
fresh = STATE / "address.fresh"
fresh.write_text(f"http://127.0.0.1:{MAIN.server_port}")
fresh.rename(STATE / "address")


def until_stdin_closes() -> None:
    sys.stdin.buffer.read()
    MAIN.shutdown()


threading.Thread(target=until_stdin_closes, daemon=True).start()
MAIN.serve_forever()
