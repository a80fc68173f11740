"""What the official client makes of errors: it ends with 0, so only its words and the fake's journal tell."""

import json

from ends import KEY

CREATE_ERRORS = [
    # Fault, statuses that the journal must show, what the client prints.
    ({"kind": "offer_gone", "code": 404}, [404], "no_such_ask"),
    ({"kind": "offer_gone", "code": 410}, [410], "no_such_ask"),
    ({"kind": "contract_in_error"}, [400], "created stopped"),
    ({"kind": "status", "code": 500}, [500], "injected"),
]
LIST_ERRORS = [
    ({"kind": "too_many", "body": "detail"}, 3, [429, 429, 429], "429"),
    ({"kind": "too_many", "body": "text"}, 3, [429, 429, 429], "429"),
    ({"kind": "status", "code": 502, "html": True}, 3, [502, 502, 502], "502"),
    ({"kind": "status", "code": 503}, 3, [503, 503, 503], "503"),
    ({"kind": "status", "code": 502, "html": True}, 1, [502, 200], "["),
    ({"kind": "status", "code": 500}, 1, [500], "500"),
]


def run(rig, *words: str, key: str = KEY) -> tuple:
    """What a command said, and its calls."""
    rig.fake.calls()
    said = rig.client.run(*words, key=key)
    calls = rig.fake.calls()
    rig.checks.table.append((" ".join(words), [call["status"] for call in calls], said.code))
    return said, calls


def error(said) -> dict:
    """What `--raw` prints on standard error."""
    start = said.err.find("{")
    return json.loads(said.err[start:]) if start >= 0 else {}


def troubles(rig) -> None:
    fake, that = rig.fake, rig.checks.that
    fake.advance(61)
    said, calls = run(rig, "show", "instances", "--raw", key="wrong-key")
    that("401: one request", [call["status"] for call in calls] == [401], calls)
    that("401: said, with exit code 0", error(said) == {"error": True, "status_code": 401, "msg": "Invalid user key"} and said.code == 0, said)
    said, _ = run(rig, "show", "instances", key="wrong-key")
    that("401: in words", "Failed with error 401: Invalid user key" in said.err, said)

    for fault, times, statuses, text in LIST_ERRORS:
        fake.advance(61)
        fake.control("faults", clear=True)
        fake.fault("list", times, **fault)
        said, calls = run(rig, "show", "instances", "--raw")
        that(f"list {fault}: requests", [call["status"] for call in calls] == statuses, calls)
        that(f"list {fault}: said with exit code 0", text in said.out + said.err and said.code == 0, said)

    fake.advance(61)
    fake.control("faults", clear=True)
    fake.fault("search", 3, kind="too_many", body="quota")
    said, calls = run(rig, "search", "offers", "num_gpus=1", "--raw")
    that("search quota: not tried again", [call["status"] for call in calls] == [429], calls)
    that("search quota: when it ends", "Resets at" in error(said).get("msg", "") and "00:00 UTC" in error(said)["msg"], said)
    fake.control("faults", clear=True)

    charset = {"kind": "body", "code": 200, "content_type": "application/json; charset=utf-8", "text": '{"offers": []}'}
    fake.advance(61)
    fake.fault("search", 1, **charset)
    said, _ = run(rig, "search", "offers", "num_gpus=1", "--raw")
    that("search: another content type is refused", "invalid return Content-Type" in said.out, said)

    for fault, statuses, text in CREATE_ERRORS:
        fake.advance(61)
        ask = rig.offer()
        fake.control("faults", clear=True)
        fake.fault("create", 1, **fault)
        said, calls = run(rig, "create", "instance", str(ask), "--image", "x", "--disk", "10", "--raw")
        that(f"create {fault}: requests", [call["status"] for call in calls] == statuses, calls)
        that(f"create {fault}: said", text in error(said).get("msg", "") and said.code == 0, said)
    left = fake.state()["instances"]
    that("create: an error that hides a stopped instance", [row["status"] for row in left] == ["stopped"], left)
    fake.advance(3600)
    that("create: which costs", fake.state()["instances"][0]["cost"]["total"] > 0.02)
    fake.advance(61)
    run(rig, "destroy", "instance", str(left[0]["id"]), "-y")

    # The reply is lost: the client tries again by itself, and reports a failure while one instance is there.
    fake.advance(61)
    ask = rig.offer()
    fake.fault("create", 1, kind="lost_reply", effect=True)
    fake.control("options", limits=False)
    said, calls = run(rig, "create", "instance", str(ask), "--image", "x", "--disk", "10", "--label", "lost", "--raw")
    fake.control("options", limits=True)
    that("lost reply: tried again", [call["status"] for call in calls] == [0, 404], calls)
    that("lost reply: reported as a failure", error(said).get("status_code") == 404, said)
    that("lost reply: and one is there", [row["label"] for row in fake.state()["instances"]] == ["lost"])
    fake.advance(61)
    run(rig, "destroy", "instance", str(fake.state()["instances"][0]["id"]), "-y")
    limits(rig)


def limits(rig) -> None:
    """The clock stands still: a second call comes too early, and so do the two that the client tries after it."""
    fake, that = rig.fake, rig.checks.that
    for words, op, seconds in [
        (["show", "instances", "--raw"], "list", 1.0),
        (["show", "instance", "5", "--raw"], "show", 2.0),
        (["destroy", "instance", "5", "-y"], "destroy", 3.0),
        (["change", "bid", "5", "--price", "1"], "bid", 5.5),
        (["show", "deposit", "5"], "deposit", 3.0),
    ]:
        fake.advance(61)
        run(rig, *words)
        said, calls = run(rig, *words)
        that(f"limit of {op}", [(call["op"], call["status"]) for call in calls] == [(op, 429)] * 3, calls)
        fake.advance(seconds)
        _, calls = run(rig, *words)
        that(f"limit of {op}: over after {seconds} s", calls[0]["status"] != 429, calls)
    fake.advance(61)
    for _ in range(10):
        fake.ask("POST", "/api/v0/bundles/", {"limit": 1})
    said, calls = run(rig, "search", "offers", "num_gpus=1", "--raw")
    that("limit of searches: ten a minute", [call["status"] for call in calls] == [429, 429, 429], calls)
    fake.advance(61)
    said, _ = run(rig, "search", "offers", "num_gpus=1", "--raw")
    that("limit of searches: over after a minute", len(said.json) > 5, said)
