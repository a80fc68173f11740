#!/usr/bin/env python3
"""Says whether a run that was killed on purpose lost anything, from its record (written by `.ci/chaos`).

    check_chaos.py RECORD.json ...  checks records
    check_chaos.py --self-test      doctors a good record and wants every lie to be refused

Equal weights alone prove little: a run that starts over from nothing ends with the same weights. So the journal,
what the training itself wrote down step by step, and the bytes in the store are held against each other.
"""

import copy
import hashlib
import json
import sys

FINAL_MACHINE = "DESTROYED"


class Journal:
    """The events of one run, in the order of their numbers."""

    def __init__(self, record):
        self.run = record["run_id"]
        self.events = sorted(record["events"], key=lambda event: event["seq"])
        self.bound = self.of("bound")

    def of(self, verb):
        return [event for event in self.events if event["verb"] == verb]

    def durable_before(self, seq):
        """The checkpoints that were durable when event `seq` was written, by (generation, step)."""
        found = [e for e in self.of("durable") if e["seq"] < seq and e["object"].startswith(self.run + "/")]
        return sorted((e["detail"]["generation"], e["detail"]["step"], e["object"]) for e in found)


def steps_by_generation(record):
    steps = {}
    for generation, step, *_ in record["step_lines"]:
        steps.setdefault(generation, []).append(step)
    return steps


def weights(record, journal):
    if not record["reference"] or record["weights"] != record["reference"]:
        yield f"the weights differ: {record['weights']} after kills, {record['reference']} without"


def outcome(record, journal):
    settled = [e["detail"].get("run") for e in journal.of("settled")]
    if settled != ["SUCCEEDED"]:
        yield f"the run settled as {settled}, not once as SUCCEEDED"
    if record["report"]["state"] != "SUCCEEDED" or record["report"]["exit_code"] != 0:
        yield f"the report says {record['report']['state']}, exit code {record['report']['exit_code']}"
    exits = [e["detail"]["exit"] for e in journal.of("ended")]
    if exits != [{"kind": "code", "code": 0}]:
        yield f"attempts ended by themselves with {exits}; only the last may, with 0"


def counts(record, journal):
    kills, bound = record["kills"], journal.bound
    if len(journal.of("sabotage")) != kills:
        yield f"{len(journal.of('sabotage'))} machines were sabotaged, {kills} were asked for"
    if len(journal.of("attempt-lost")) != kills:
        yield f"{len(journal.of('attempt-lost'))} attempts were lost, {kills} machines were killed"
    want = list(range(1, kills + 2))
    for name in ("number", "generation"):
        if [e["detail"][name] for e in bound] != want:
            yield f"bound attempts have the {name}s {[e['detail'][name] for e in bound]}, not {want}"
    machines = [e["detail"]["machine"] for e in bound]
    if len(set(machines)) != len(machines):
        yield f"a machine was bound twice: {machines}"
    if [e["object"] for e in journal.of("sabotage")] != machines[:kills]:
        yield "other machines were killed than those that were bound"


def start_lines(record, journal):
    bound = {e["detail"]["generation"]: e for e in journal.bound}
    generations = [line["generation"] for line in record["start_lines"]]
    if len(set(generations)) != len(generations):
        yield f"a generation started twice: {generations}"
    if not generations or generations[-1] != record["kills"] + 1:
        yield f"the last generation left no start line: {generations}"
    for line in record["start_lines"]:
        event = bound.get(line["generation"])
        if event is None or event["object"] != line["attempt"]:
            yield f"generation {line['generation']} started as attempt {line['attempt']}, which was not bound"
        elif event["detail"]["resume"] != line["resume_step"]:
            at, said = line["resume_step"], event["detail"]["resume"]
            yield f"generation {line['generation']} went on from step {at}, but was bound to go on from {said}"


def resume_points(record, journal):
    """Each attempt goes on from the newest step that was durable when it was bound."""
    for event in journal.bound:
        durable = journal.durable_before(event["seq"])
        newest = durable[-1][1] if durable else None
        if event["detail"]["resume"] != newest:
            resume = event["detail"]["resume"]
            yield f"attempt {event['detail']['number']} goes on from {resume}, but step {newest} was durable"


def slowest_publication(record, journal):
    """The longest time from a step to its durable checkpoint, in milliseconds, as this run recorded it."""
    at = {(line[0], line[1]): line[2] for line in record["step_lines"] if len(line) > 2}
    durable = [e for e in journal.of("durable") if e["object"].startswith(record["run_id"] + "/")]
    of = [(e["at_ms"], (e["detail"]["generation"], e["detail"]["step"])) for e in durable]
    return max((at_ms - at[step] for at_ms, step in of if step in at), default=0)


def repeats(record, journal):
    # One interval, and what was being published when the machine died: an interval, or more where the record itself
    # says that publishing takes longer here or that the machine stood still.
    publishing = 2 * slowest_publication(record, journal) / record["step_ms"]
    most = record["interval"] + max(record["interval"], publishing) + record["stalled_ms"] / record["step_ms"]
    steps, kill = steps_by_generation(record), 0
    done, last = set(), 0
    for event in journal.bound:
        generation, resume = event["detail"]["generation"], event["detail"]["resume"] or 0
        own = steps.get(generation, [])
        durable = [step for _, step, _ in journal.durable_before(event["seq"])]
        again = [step for step in own if step <= max(durable, default=0)]
        if again:
            yield f"generation {generation} executed step {again[0]} again, though {max(durable)} was durable"
        if own != list(range(resume + 1, resume + 1 + len(own))):
            yield f"generation {generation} did not execute every step after {resume} once, in order: {own[:5]}…"
        repeated = last - resume if last else 0
        if repeated > most:
            yield f"kill {kill} cost {repeated} steps, more than an interval and what was in flight ({most:.0f})"
        done.update(own)
        kill, last = kill + 1, own[-1] if own else 0
    if done != set(range(1, record["steps"] + 1)):
        yield f"{len(done)} different steps were executed, not 1 to {record['steps']}"
    foreign = set(steps) - {e["detail"]["generation"] for e in journal.bound}
    if foreign:
        yield f"generations {sorted(foreign)} executed steps and were never bound"


def contents(record, journal):
    """What was restored is, byte for byte, what was stored, and what an unbroken run has at that step."""
    restored = {e["object"]: e["detail"] for e in journal.of("restored")}
    bound = {e["detail"]["generation"]: e for e in journal.bound}
    for line in record["start_lines"]:
        event = bound.get(line["generation"])
        if event is None or line["resume_step"] is None:
            if line["resume_sha256"] is not None:
                yield f"generation {line['generation']} has a checkpoint's digest and no checkpoint"
            continue
        durable = journal.durable_before(event["seq"])
        key = durable[-1][2] if durable else None
        said = restored.get(event["object"], {})
        if said.get("key") != key or said.get("step") != line["resume_step"]:
            yield f"generation {line['generation']} restored {said.get('key')}, the newest durable is {key}"
        if record["contents"].get(key) != line["resume_sha256"]:
            yield f"generation {line['generation']} loaded other bytes than the store has under {key}"
        # Publishing gives way: the unbroken run may have passed over a step. Its weights are compared in any case.
        unbroken = record["reference_contents"].get(str(line["resume_step"]), line["resume_sha256"])
        if unbroken != line["resume_sha256"]:
            yield f"generation {line['generation']} loaded another step {line['resume_step']} than the unbroken run's"


def moments(record, journal):
    """The machines were killed when the draw said so."""
    started = {e["object"]: e["at_ms"] for e in journal.of("started")}
    on = {e["detail"]["machine"]: e["object"] for e in journal.bound}
    drawn = [kill["after_seconds"] for kill in record["report"]["chaos"]["kills"]]
    if len(drawn) != record["kills"]:
        yield f"the report knows of {len(drawn)} kills"
    for event, delay in zip(journal.of("sabotage"), drawn):
        real = (event["at_ms"] - started.get(on.get(event["object"]), 0)) / 1000
        # The draw counts from when the command line saw the attempt run, which is late on a slow machine.
        if not delay - 0.2 <= real <= delay + 30 + record["stalled_ms"] / 1000:
            yield f"a kill drawn for {delay} s after the start came after {real:.1f} s"


def machines(record, journal):
    own = {e["object"] for e in journal.of("created")}
    if own != {machine["id"] for machine in record["machines"]}:
        yield "the machines of the journal are not those of the list"
    alive = [m["id"] for m in record["machines"] if m["state"] != FINAL_MACHINE]
    alive += sorted(own - {e["object"] for e in journal.of("destroyed")})
    if alive:
        yield f"machines are not confirmed gone: {alive}"
    if not record["report"]["machines_released"]:
        yield "the report does not say that all machines are gone"
    if record["processes_left"]:
        yield f"processes of its machines are left: {record['processes_left']}"


def journal_whole(record, journal):
    if record["chain_holds"] is not True:
        yield f"the journal's chain does not hold: {record['chain_holds']}"
    if not record["numbers_without_hole"]:
        yield "the journal's numbers have a hole"


CHECKS = (
    weights,
    outcome,
    counts,
    start_lines,
    resume_points,
    repeats,
    contents,
    moments,
    machines,
    journal_whole,
)


def check(record):
    """All that is wrong, as (check, words)."""
    journal = Journal(record)
    return [(rule.__name__, words) for rule in CHECKS for words in rule(record, journal)]


def draws(records):
    """Over several records: a seed repeats its draw, two seeds differ."""
    by_seed = {}
    for record in records:
        drawn = [kill["after_seconds"] for kill in record["report"]["chaos"]["kills"]]
        by_seed.setdefault(record["report"]["chaos"]["seed"], []).append(drawn)
    for seed, drawn in by_seed.items():
        if any(one != drawn[0] for one in drawn):
            yield ("draws", f"seed {seed} drew different moments: {drawn}")
    different = {json.dumps(drawn[0]) for drawn in by_seed.values()}
    if len(by_seed) > 1 and len(different) == 1:
        yield ("draws", f"{len(by_seed)} seeds drew the same moments: {different}")


# --- the self-test ---------------------------------------------------------


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def made_up():
    """A good record of 100 steps with two kills, at steps 47 and 71."""
    run, interval, steps = "run", 20, 100
    record = {"run_id": run, "steps": steps, "interval": interval, "kills": 2, "events": [], "machines": []}
    record |= {"start_lines": [], "step_lines": [], "contents": {}, "processes_left": [], "chain_holds": True}
    record |= {"step_ms": 60, "stalled_ms": 0}
    record |= {"weights": digest("w"), "reference": digest("w"), "numbers_without_hole": True}
    record["reference_contents"] = {str(s): digest(f"step {s}") for s in range(interval, steps + 1, interval)}
    clock, newest, kills = 0, None, []

    def event(verb, thing, after=10, **detail):
        nonlocal clock
        clock += after
        number = len(record["events"]) + 1
        record["events"].append({"seq": number, "at_ms": clock, "verb": verb, "object": thing, "detail": detail})

    for generation, last in ((1, 47), (2, 71), (3, steps)):
        machine, attempt = f"m{generation}", f"a{generation}"
        event("created", machine)
        event("bound", attempt, generation=generation, number=generation, machine=machine, resume=newest)
        begin = newest or 0
        if newest:
            event("restored", attempt, key=f"{run}/g{generation - 1}/s{newest}", step=newest)
        event("started", attempt)
        sha = record["reference_contents"].get(str(newest))
        line = {"generation": generation, "attempt": attempt, "resume_step": newest, "resume_sha256": sha}
        record["start_lines"].append(line)
        for step in range(begin + 1, last + 1):
            record["step_lines"].append([generation, step, clock])
            clock += 60
            if step % interval == 0:
                key = f"{run}/g{generation}/s{step}"
                event("durable", key, generation=generation, step=step)
                record["contents"][key] = record["reference_contents"][str(step)]
                newest = step
        if last < steps:
            event("sabotage", machine)
            began = [e["at_ms"] for e in record["events"] if e["verb"] == "started"][-1]
            kills.append({"after_seconds": round((clock - began) / 1000, 1)})
            event("attempt-lost", attempt)
        else:
            event("ended", attempt, exit={"kind": "code", "code": 0})
            event("settled", run, run="SUCCEEDED")
        event("destroyed", machine)
        record["machines"].append({"id": machine, "state": FINAL_MACHINE})
    record["report"] = {"state": "SUCCEEDED", "exit_code": 0, "machines_released": True}
    record["report"]["chaos"] = {"seed": 1, "kills": kills}
    return record


def doctored(good):
    """Lies, each with the check that must catch it."""

    def lie(rule, change):
        record = copy.deepcopy(good)
        change(record)
        return rule, record

    def events(record, verb):
        return [e for e in record["events"] if e["verb"] == verb]

    def drop(record, verb):
        record["events"].remove(events(record, verb)[-1])

    def starts_over(record):
        """The weights are the same, but the last generation began at step 1."""
        last = record["kills"] + 1
        record["step_lines"] = [line for line in record["step_lines"] if line[0] != last]
        record["step_lines"] += [[last, step] for step in range(1, record["steps"] + 1)]

    def older_point(record):
        """Bound to the step before the newest durable one, and consistently so."""
        bound, line = events(record, "bound")[-1], record["start_lines"][-1]
        older = bound["detail"]["resume"] - record["interval"]
        bound["detail"]["resume"] = line["resume_step"] = older
        line["resume_sha256"] = record["reference_contents"][str(older)]
        again = [[bound["detail"]["generation"], s] for s in range(older + 1, older + record["interval"] + 1)]
        record["step_lines"] = [l for l in record["step_lines"] if l[0] != again[0][0]] + again + [
            l for l in record["step_lines"] if l[0] == again[0][0]
        ]

    def lost_publications(record):
        """Nothing of the last killed generation became durable, though it ran on for long."""
        generation = record["kills"]
        bound = events(record, "bound")
        resume = bound[generation - 1]["detail"]["resume"] or 0
        record["events"] = [
            e
            for e in record["events"]
            if not (e["verb"] == "durable" and e["detail"]["generation"] == generation)
        ]
        bound[generation]["detail"]["resume"] = resume or None
        own = [[generation, s] for s in range(resume + 1, resume + 2 * record["interval"] + 2)]
        rest = [[generation + 1, s] for s in range(resume + 1, record["steps"] + 1)]
        kept = [line for line in record["step_lines"] if line[0] < generation]
        record["step_lines"] = kept + own + rest

    def set_in(*path):
        def change(record):
            *way, last, value = path
            for key in way:
                record = record[key]
            record[last] = value

        return change

    def stored_bytes(record):
        record["contents"] = {key: digest("other") for key in record["contents"]}

    def reference_bytes(record):
        record["reference_contents"] = {key: digest("other") for key in record["reference_contents"]}

    def second_start(record):
        record["start_lines"].append(dict(record["start_lines"][-1]))

    def early(record):
        for event in events(record, "sabotage"):
            event["at_ms"] -= 600_000

    yield lie("weights", set_in("weights", digest("other")))
    yield lie("weights", set_in("reference", ""))
    yield lie("outcome", lambda r: drop(r, "settled"))
    yield lie("outcome", set_in("report", "exit_code", 1))
    yield lie("outcome", lambda r: events(r, "ended")[0]["detail"].update(exit={"kind": "code", "code": 1}))
    yield lie("counts", lambda r: drop(r, "sabotage"))
    yield lie("counts", lambda r: drop(r, "attempt-lost"))
    yield lie("counts", lambda r: drop(r, "bound"))
    yield lie("counts", lambda r: events(r, "bound")[-1]["detail"].update(generation=r["kills"]))
    yield lie("counts", lambda r: events(r, "bound")[1]["detail"].update(
        machine=events(r, "bound")[0]["detail"]["machine"]))
    yield lie("start_lines", second_start)
    yield lie("start_lines", lambda r: r["start_lines"].pop())
    yield lie("start_lines", lambda r: r["start_lines"][-1].update(attempt="another"))
    yield lie("start_lines", lambda r: r["start_lines"][-1].update(resume_step=0))
    yield lie("resume_points", older_point)
    yield lie("repeats", older_point)
    yield lie("repeats", starts_over)
    yield lie("repeats", lost_publications)
    yield lie("repeats", lambda r: r["step_lines"].pop())
    yield lie("repeats", lambda r: r["step_lines"].append([r["kills"] + 2, 1]))
    yield lie("repeats", lambda r: r["step_lines"].append(r["step_lines"][-1]))
    yield lie("contents", stored_bytes)
    yield lie("contents", reference_bytes)
    yield lie("contents", lambda r: r["start_lines"][-1].update(resume_sha256=digest("other")))
    yield lie("contents", lambda r: events(r, "restored")[-1]["detail"].update(key="another"))
    yield lie("moments", early)
    yield lie("moments", lambda r: r["report"]["chaos"]["kills"].pop())
    yield lie("machines", set_in("machines", 0, "state", "READY"))
    yield lie("machines", lambda r: drop(r, "destroyed"))
    yield lie("machines", lambda r: r["machines"].pop())
    yield lie("machines", set_in("report", "machines_released", False))
    yield lie("machines", set_in("processes_left", ["1 python"]))
    yield lie("journal_whole", set_in("chain_holds", False))
    yield lie("journal_whole", set_in("numbers_without_hole", False))


def self_test(good):
    """The number of lies that were refused; ends the program where one was believed."""
    found = check(good)
    if found:
        sys.exit(f"the good record is refused: {found}")
    number = 0
    for number, (rule, record) in enumerate(doctored(good), 1):
        found = check(record)
        if rule not in {name for name, _ in found}:
            sys.exit(f"lie {number} was not refused by `{rule}`: {found}")
    untested = {rule.__name__ for rule in CHECKS} - {rule for rule, _ in doctored(good)}
    if untested:
        sys.exit(f"no lie tests {sorted(untested)}")
    other = copy.deepcopy(good)
    other["report"]["chaos"]["kills"][0]["after_seconds"] += 0.5
    if not list(draws([good, other])):
        sys.exit("a seed that does not repeat its draw was not refused")
    same = copy.deepcopy(good)
    same["report"]["chaos"]["seed"] += 1
    if not list(draws([good, same])):
        sys.exit("two seeds with one draw were not refused")
    if list(draws([good, good])):
        sys.exit("a seed that repeats its draw was refused")
    return number + 2


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main(arguments):
    if arguments[:1] == ["--self-test"]:
        print(f"check_chaos: {self_test(made_up())} doctored records refused")
        return 0
    if not arguments:
        sys.exit(__doc__)
    records = [read(path) for path in arguments]
    found = [words for record in records for words in check(record)] + list(draws(records))
    for rule, words in found:
        print(f"check_chaos: {rule}: {words}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
