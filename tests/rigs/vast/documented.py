"""The fake's answers against the vendor's own description of them.

    python3 documented.py --program target/debug/fake-vast --openapi openapi.yaml

The description (`api-reference/openapi.yaml` of vast-ai/docs) has no licence and is not in this repository; PyYAML is
needed. Each answer's fields must be of the described types, and each described field of an offer or an instance must be
there. What differs on purpose is listed with the reason.
"""

import argparse
import json
import pathlib
import sys

import yaml

from ends import Fake

# Where the description is known to be wrong or says less than the vendor's client needs.
KNOWN = {
    ("get /api/v0/instances/{id}", "ports"): "the client reads a map as docker makes it",
    ("get /api/v0/instances/{id}", "country_code"): "only in the list",
    ("get /api/v1/instances", "country_code"): "null allowed and given",
}
TYPES = {
    "string": lambda v: isinstance(v, str), "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), "boolean": lambda v: isinstance(v, bool),
    "array": lambda v: isinstance(v, list), "object": lambda v: isinstance(v, dict), "null": lambda v: v is None,
}


class Judge:
    """Compares answers with the description."""

    def __init__(self, description: dict) -> None:
        self.description, self.problems, self.compared = description, [], 0

    def resolve(self, schema: dict) -> dict:
        while "$ref" in schema:
            at = self.description
            for part in schema["$ref"].lstrip("#/").split("/"):
                at = at[part]
            schema = at
        return schema

    def compare(self, name: str, path: str, schema: dict, value, whole: bool) -> None:
        schema = self.resolve(schema)
        wanted = schema.get("type")
        wanted = wanted if isinstance(wanted, list) else [wanted] if wanted else []
        if schema.get("nullable"):
            wanted = [*wanted, "null"]
        self.compared += 1
        leaf = path.rsplit(".", 1)[-1]
        if wanted and not any(TYPES[kind](value) for kind in wanted) and (name, leaf) not in KNOWN:
            self.problems.append(f"{name}: {path} is {json.dumps(value)[:60]}, described as {wanted}")
            return
        if isinstance(value, dict):
            for key, inner in (schema.get("properties") or {}).items():
                if key in value:
                    self.compare(name, f"{path}.{key}", inner, value[key], whole)
                elif whole and (name, key) not in KNOWN:
                    self.problems.append(f"{name}: {path}.{key} is missing")
        if isinstance(value, list) and "items" in schema:
            for item in value[:3]:
                self.compare(name, path + "[]", schema["items"], item, whole)

    def example(self, described: str, key: str, row: dict) -> None:
        """Where there is an example only: each of its fields is there, of the same kind where it says one."""
        content = self.description["paths"][described]["post"]["responses"]["200"]["content"]["application/json"]
        kinds = lambda value: {kind for kind, fits in TYPES.items() if fits(value)} - {"integer"}
        for field, value in content["example"][key].items():
            self.compared += 1
            if field not in row:
                self.problems.append(f"{described}: {field} of the example is missing")
            elif value is not None and row[field] is not None and not kinds(value) & kinds(row[field]):
                self.problems.append(f"{described}: {field} is {row[field]!r}, in the example {value!r}")

    def answer(self, fake: Fake, method: str, described: str, path: str, body=None, whole: bool = False):
        fake.advance(61)
        status, kind, text = fake.ask(method.upper(), path, body)
        name = f"{method} {described}"
        answers = self.description["paths"][described][method]["responses"]
        if str(status) not in answers:
            self.problems.append(f"{name}: {status} is not described: {text[:200]}")
            return json.loads(text)
        content = self.resolve(answers[str(status)]).get("content", {})
        if "application/json" in content:
            self.compare(name, "$", content["application/json"].get("schema", {}), json.loads(text), whole)
        return json.loads(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--openapi", type=pathlib.Path, required=True)
    options = parser.parse_args()
    judge = Judge(yaml.safe_load(options.openapi.read_text()))
    fake = Fake(options.program.resolve(), "--offers", "40", "--seed", "3")
    try:
        ask = lambda *words, **more: judge.answer(fake, *words, **more)
        offers = ask("post", "/api/v0/bundles", "/api/v0/bundles/", {"rentable": {"eq": True}}, whole=True)["offers"]
        judge.example("/api/v0/bundles", "offers", offers[0])
        ask("post", "/api/v0/bundles", "/api/v0/bundles/", {"nonsense": {"eq": True}})
        ask("post", "/api/v0/ssh", "/api/v0/ssh/", {"ssh_key": "ssh-ed25519 AAAA a"})
        ask("post", "/api/v0/ssh", "/api/v0/ssh/", {})
        ask("get", "/api/v0/ssh", "/api/v0/ssh/")
        create = {"image": "i", "disk": 10, "label": "l", "onstart": "true", "runtype": "ssh_direct"}
        made = ask("put", "/api/v0/asks/{id}", f"/api/v0/asks/{offers[0]['id']}/", create)["new_contract"]
        ask("put", "/api/v0/asks/{id}", f"/api/v0/asks/{offers[0]['id']}/", create)
        ask("put", "/api/v0/asks/{id}", f"/api/v0/asks/{offers[1]['id']}/", {})
        one = f"/api/v0/instances/{made}/"
        ask("get", "/api/v0/instances/{id}", one, whole=True)
        ask("get", "/api/v1/instances", "/api/v1/instances/", whole=True)
        ask("get", "/api/v1/instances", "/api/v1/instances/?after_token=x")
        ask("put", "/api/v0/instances/{id}", one, {"label": "m"})
        ask("put", "/api/v0/instances/{id}", one, {})
        ask("put", "/api/v0/instances/bid_price/{id}", f"/api/v0/instances/bid_price/{made}/", {"price": 0.2})
        ask("put", "/api/v0/instances/request_logs/{id}", f"/api/v0/instances/request_logs/{made}/", {"tail": "5"})
        ask("put", "/api/v0/instances/request_logs/{id}", "/api/v0/instances/request_logs/5/", {})
        ask("put", "/api/v0/instances/command/{id}", f"/api/v0/instances/command/{made}/", {"command": "ls /"})
        ask("put", "/api/v0/instances/reboot/{id}", f"/api/v0/instances/reboot/{made}/", {})
        ask("put", "/api/v0/instances/recycle/{id}", f"/api/v0/instances/recycle/{made}/", {})
        ask("put", "/api/v0/instances/prepay/{id}", f"/api/v0/instances/prepay/{made}/", {"amount": 1})
        ask("put", "/api/v0/instances/prepay/{id}", f"/api/v0/instances/prepay/{made}/", {"amount": 1e6})
        ask("get", "/api/v0/instances/balance/{id}", f"/api/v0/instances/balance/{made}/")
        ask("get", "/api/v0/instances/{id}/ssh", f"{one}ssh/")
        ask("post", "/api/v0/instances/{id}/ssh", f"{one}ssh/", {"ssh_key": "ssh-ed25519 AAAA b"})
        ask("delete", "/api/v0/instances/{id}/ssh/{ssh_key_id}", f"{one}ssh/5/")
        ask("get", "/api/v0/charges", "/api/v0/charges/?format=tree")
        ask("get", "/api/v0/users/current", "/api/v0/users/current")
        ask("get", "/api/v0/secrets", "/api/v0/secrets/")
        ask("delete", "/api/v0/instances/{id}", one, {})
        ask("delete", "/api/v0/instances/{id}", one, {})
    finally:
        fake.close()
    for problem in judge.problems:
        print(problem)
    for (name, field), why in KNOWN.items():
        print(f"known: {name}: {field}: {why}")
    print(f"documented: {judge.compared} values compared, {len(judge.problems)} problems")
    sys.exit(1 if judge.problems else 0)


if __name__ == "__main__":
    main()
