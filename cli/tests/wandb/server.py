"""A server that speaks W&B's GraphQL as far as its public client reads runs.

    python3 server.py DIR

prints its port. Queries are parsed and answered field by field: what W&B's own client
asks is answered as it expects, and a field that the service does not have is refused.
DIR/world.json says what there is, and may change at any time:

    {"key": "...", "projects": {"ENTITY/PROJECT": [
        {"name": "ab12", "displayName": "...", "state": "finished", "config": {"lr": 0.1},
         "summaryMetrics": {...}, "rows": "FILE", "events": "FILE", ...}]}}

FILE, below DIR, has a row a line, as the client sent it: a JSON object with NaN and all.
DIR/faults.json has faults, [{"on": "history", "kind": "429", "times": 2}]; each request
that a fault is for uses one up. DIR/heard.jsonl gets a line for every request.
"""

import base64
import json
import os
import re
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIR = sys.argv[1]
LOCK = threading.Lock()
TOKEN = re.compile(r'[\s,]+|#[^\n]*|(\.\.\.|[!$():=@\[\]{}|])|([_A-Za-z]\w*)|(-?\d+(?:\.\d+)?)|("(?:[^"\\]|\\.)*")')


class Refused(Exception):
    pass


class Query:
    """A document of one operation and its fragments, parsed."""

    def __init__(self, text):
        self.tokens, at = [], 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if not found:
                raise Refused(f"Syntax Error: unexpected {text[at]!r}")
            if found.lastindex:
                self.tokens.append(found.group())
            at = found.end()
        self.tokens.append("")
        self.operation, self.fragments, self.given = None, {}, {}
        while self.peek():
            self.definition()
        if self.operation is None:
            raise Refused("Syntax Error: no operation")

    def peek(self):
        return self.tokens[0]

    def take(self, expected=None):
        token = self.tokens.pop(0)
        if not token or (expected and token != expected):
            raise Refused(f"Syntax Error: expected {expected or 'more'}, found {token!r}")
        return token

    def definition(self):
        kind = self.peek()
        if kind == "fragment":
            self.take()
            name = self.take()
            self.take("on")
            self.take()
            self.fragments[name] = self.selection()
            return
        if kind != "{":
            if self.take() != "query":
                raise Refused("only queries are answered")
            if self.peek() not in ("(", "{"):
                self.take()
            if self.peek() == "(":
                self.variables()
        self.operation = self.selection()

    def variables(self):
        self.take("(")
        while self.peek() != ")":
            self.take("$")
            name = self.take()
            self.take(":")
            kind = ""
            while self.peek() in ("[", "]", "!") or self.peek()[:1].isalpha() or self.peek()[:1] == "_":
                if kind and self.peek()[:1].isalpha() and kind[-1] not in "[":
                    break
                kind += self.take()
            default = None
            if self.peek() == "=":
                self.take()
                default = self.value()
            self.given[name] = (kind, default)
        self.take(")")

    def selection(self):
        self.take("{")
        fields = []
        while self.peek() != "}":
            if self.peek() == "...":
                self.take()
                if self.peek() == "on":
                    self.take()
                    self.take()
                    fields.append(("...", self.selection()))
                else:
                    fields.append(("...", self.take()))
                continue
            name = alias = self.take()
            if self.peek() == ":":
                self.take()
                name = self.take()
            arguments = {}
            if self.peek() == "(":
                self.take()
                while self.peek() != ")":
                    key = self.take()
                    self.take(":")
                    arguments[key] = self.value()
                self.take(")")
            fields.append((alias, name, arguments, self.selection() if self.peek() == "{" else None))
        self.take("}")
        return fields

    def value(self):
        token = self.take()
        if token == "$":
            return ("$", self.take())
        if token == "[":
            values = []
            while self.peek() != "]":
                values.append(self.value())
            self.take("]")
            return values
        if token in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[token]
        return json.loads(token) if token[0] in '"-0123456789' else token

    def flat(self, fields):
        for field in fields:
            if field[0] != "...":
                yield field
            elif isinstance(field[1], str):
                if field[1] not in self.fragments:
                    raise Refused(f"Unknown fragment {field[1]!r}.")
                yield from self.flat(self.fragments[field[1]])
            else:
                yield from self.flat(field[1])


def execute(query, variables):
    values = {}
    for name, (kind, default) in query.given.items():
        values[name] = variables.get(name, default)
        if kind.endswith("!") and values[name] is None:
            raise Refused(f"Variable ${name} of required type {kind} was not provided.")

    def bound(value):
        if isinstance(value, tuple):
            if value[1] not in query.given:
                raise Refused(f"Variable ${value[1]} is not defined.")
            return values[value[1]]
        return [bound(one) for one in value] if isinstance(value, list) else value

    def select(thing, fields):
        if thing is None:
            return None
        if isinstance(thing, list):
            return [select(one, fields) for one in thing]
        answer = {}
        for alias, name, arguments, below in query.flat(fields):
            if name == "__typename":
                answer[alias] = type(thing).__name__
                continue
            resolve = getattr(thing, "field_" + name, None)
            if resolve is None:
                raise Refused(f'Cannot query field "{name}" on type "{type(thing).__name__}".')
            found = resolve(**{key: bound(value) for key, value in arguments.items()})
            answer[alias] = found if below is None else select(found, below)
        return answer

    return select(Root(), query.operation)


class Fields:
    """An object whose members are its fields."""

    def __init__(self, **members):
        for name, value in members.items():
            setattr(self, "field_" + name, lambda value=value: value)


class User(Fields):
    pass


class Root:
    def field_viewer(self):
        user = {"id": "VXNlcjox", "username": "tester", "name": "A Tester", "email": "t@example.org"}
        none = Fields(edges=[])
        return User(**user, entity="e", flags="{}", admin=False, deletedAt=None, teams=none, apiKeys=none)

    def field_serverInfo(self):
        return Fields(cliVersionInfo={"max_cli_version": "0.16.6"}, latestLocalVersionInfo=None)

    def field_project(self, name, entityName):
        runs = world()["projects"].get(f"{entityName}/{name}")
        return None if runs is None else Project(name, entityName, runs)


class Project:
    def __init__(self, name, entity, runs):
        self.name, self.entity, self.runs = name, entity, runs

    def field_id(self):
        return base64.b64encode(f"Project:v1:{self.name}:{self.entity}".encode()).decode()

    def field_internalId(self):
        return "7"

    def field_name(self):
        return self.name

    def field_readOnly(self):
        return False

    def picked(self, filters):
        wanted = json.loads(filters or "{}")
        return [run for run in self.runs if all(run.get(key) == value for key, value in wanted.items())]

    def field_runCount(self, filters=None):
        return len(self.picked(filters))

    def field_runs(self, filters=None, after=None, first=50, order=None):
        runs = sorted(self.picked(filters), key=lambda run: run.get("createdAt", ""), reverse=order != "+created_at")
        begin = int(base64.b64decode(after)) if after else 0
        page = runs[begin : begin + first]
        cursors = [base64.b64encode(str(begin + index + 1).encode()).decode() for index in range(len(page))]
        edges = [Fields(node=Run(self, run), cursor=cursor) for run, cursor in zip(page, cursors)]
        more = begin + len(page) < len(runs)
        info = Fields(endCursor=cursors[-1] if cursors else None, hasNextPage=more)
        return Fields(edges=edges, pageInfo=info)

    def field_run(self, name):
        found = [run for run in self.runs if run["name"] == name]
        return Run(self, found[0]) if found else None


class Run:
    PLAIN = (
        "name displayName state group jobType commit tags notes createdAt heartbeatAt sweepName description"
    ).split()

    def __init__(self, project, run):
        self.project, self.run = project, run
        for name in self.PLAIN:
            setattr(self, "field_" + name, lambda name=name: run.get(name))

    def field_id(self):
        key = f"Run:v1:{self.run['name']}:{self.project.name}:{self.project.entity}"
        return base64.b64encode(key.encode()).decode()

    def field_readOnly(self):
        return False

    def field_projectId(self):
        return self.project.field_internalId()

    def field_user(self):
        return User(name="A Tester", username="tester")

    def field_config(self):
        config = {key: {"value": value, "desc": None} for key, value in self.run.get("config", {}).items()}
        return json.dumps(config)

    def field_summaryMetrics(self):
        return json.dumps(self.run.get("summaryMetrics", {}))

    def field_systemMetrics(self):
        return "{}"

    def rows(self, kind="rows"):
        if kind not in self.run:
            return []
        with open(os.path.join(DIR, self.run[kind]), encoding="utf-8") as file:
            return file.read().splitlines()

    def field_historyLineCount(self):
        return self.run.get("counted", len(self.rows()))

    def field_historyKeys(self):
        rows = self.rows()
        last = self.run.get("lastStep", json.loads(rows[-1])["_step"] if rows else -1)
        return {"keys": {}, "sets": [], "lastStep": last}

    def field_history(self, minStep=0, maxStep=1 << 62, samples=500):
        rows = [row for row in self.rows() if minStep <= json.loads(row)["_step"] < maxStep]
        return sample(rows, samples)

    def field_parquetHistory(self, liveKeys):
        # What no file of Parquet has yet: the first row with these keys says from where on.
        rows = [json.loads(row) for row in self.rows()[:1]]
        return Fields(parquetUrls=[], liveData=[{key: row.get(key) for key in liveKeys} for row in rows])

    def field_events(self, samples=500):
        return sample(self.rows("events"), samples)


def sample(rows, most):
    return rows if len(rows) <= most else [rows[index * len(rows) // most] for index in range(most)]


def world():
    with open(os.path.join(DIR, "world.json"), encoding="utf-8") as file:
        return json.load(file)


def fault(operation):
    """Uses up a fault for an operation, if there is one."""
    path = os.path.join(DIR, "faults.json")
    with LOCK:
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            faults = json.load(file)
        for one in faults:
            if one["times"] > 0 and one["on"] in (operation, "any"):
                one["times"] -= 1
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(faults, file)
                return one
    return None


def operation_of(query):
    names = {name for _, name, _, _ in deep(query, query.operation)}
    return next((name for name in ("history", "events", "runs", "run", "viewer") if name in names), "other")


def deep(query, fields):
    for field in query.flat(fields):
        yield field
        yield from deep(query, field[3] or [])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def heard(self, **what):
        line = json.dumps({"path": self.path, "authorization": self.headers.get("Authorization"), **what})
        with LOCK, open(os.path.join(DIR, "heard.jsonl"), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def reply(self, status, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.heard(operation="get")
        self.reply(404, {"errors": [{"message": "not found"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        variables = asked.get("variables") or {}
        if isinstance(variables, str):
            variables = json.loads(variables)
        try:
            query = Query(asked["query"])
            operation = operation_of(query)
        except Refused as error:
            self.heard(operation="broken", variables=variables)
            return self.reply(400, {"errors": [{"message": str(error)}]})
        self.heard(operation=operation, variables=variables)
        proof = base64.b64encode(b"api:" + world()["key"].encode()).decode()
        if self.headers.get("Authorization") != f"Basic {proof}":
            return self.reply(401, {"errors": [{"message": "invalid API key"}]})
        found = fault(operation)
        if found and self.spoil(found, query, variables):
            return None
        try:
            return self.reply(200, {"data": execute(query, variables)})
        except (Refused, TypeError) as error:
            return self.reply(400, {"errors": [{"message": str(error)}]})

    def spoil(self, found, query, variables):
        """Answers with a fault: whether it did."""
        kind = found["kind"]
        if kind == "slow":
            # Until the other side has had enough.
            self.connection.settimeout(600)
            self.connection.recv(1)
            self.close_connection = True
        elif kind == "cut":
            body = json.dumps({"data": execute(query, variables)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif kind == "redirect":
            self.reply(307, b"", Location=found["to"])
        elif kind == "errors":
            self.reply(200, {"errors": [{"message": found["message"]}], "data": None})
        elif kind == "body":
            self.reply(200, found["body"].encode())
        elif kind == "endless":
            data = execute(query, variables)
            data["project"]["runs"]["pageInfo"] = {"endCursor": None, "hasNextPage": True}
            info = data["project"]["runs"]["pageInfo"]
            info["endCursor"] = base64.b64encode(b"0" * (1 + found["times"] % 7)).decode()
            self.reply(200, {"data": data})
        elif kind == "huge":
            if int(variables.get("maxStep", 0)) - int(variables.get("minStep", 0)) <= found.get("fits", 0):
                return False
            piece = b" " * (1 << 20)
            self.send_response(200)
            self.send_header("Content-Length", str(80 << 20))
            self.end_headers()
            try:
                for _ in range(80):
                    self.wfile.write(piece)
            except OSError:
                self.close_connection = True
        else:
            headers = {"Retry_After": found["after"]} if "after" in found else {}
            self.reply(int(kind), {"errors": [{"message": found.get("message", "try again")}]}, **headers)
        return True


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
