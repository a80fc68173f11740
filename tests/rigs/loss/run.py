#!/usr/bin/env python3
"""Injects faults into machines in network namespaces and measures what the program makes of them.

    run.py --program target/debug/outlast --emulator target/debug/link_emulator [--rounds 2] [--kinds NAME...]

Needs Linux, root, `ip`, `nsenter`, `ss` and /dev/net/tun; says so and ends with 0 where something is missing, unless
--must. Makes its own namespaces, controller and data directory and deletes them, also when it is interrupted.
Prints the tables of docs/reliability.md. Ends with 1 where a machine was lost for no reason, a verdict is wrong or a
fault was noticed too late.
"""
import argparse
import concurrent.futures
import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from faults import KINDS, Case, Kind, shuffled  # noqa: E402
from journal import Journal  # noqa: E402
from lab import Broken, Lab, cannot, kill  # noqa: E402
import report  # noqa: E402

# Machines that a fault ended or took away, and how soon that must be noticed (seconds).
WITH_WORD = ("machine killed", "machine gone")
WITHOUT_WORD = ("host dead", "partition, long")
# The median and the 99th percentile, of a machine that has nothing else to do. A few injections beside a build say
# less: that they are noticed long before silence alone would give the machine up.
SOON, LATE, SLACK, FEW = 3.0, 6.0, 9.0, 10
MANY, AWAY, SILENT = 5, 40, 2
# Seconds of silence after which a machine is given up, and how much of it a fault that must not lead there leaves at
# least for the machine to be heard again.
LOST_AFTER, SPARE = 30, 3


def say(text):
    print(text, flush=True)


@contextlib.contextmanager
def pool_of(lab, size):
    """Threads that end soon when the rig is interrupted."""
    pool = concurrent.futures.ThreadPoolExecutor(size)
    try:
        yield pool
    except BaseException:
        lab.stopping.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def inject(lab, journal, kind, number, seed):
    """One injection; what was seen of it."""
    case = Case(lab, journal, kind, number, seed)
    result = {"kind": kind.name, "number": number, "error": ""}
    # These machines have one kernel: while one runs out of memory, a SIGKILL on another may well be the kernel's.
    alone = lab.kernel if kind.name in ("out of memory", "program killed") else contextlib.nullcontext()
    with alone:
        follow(lab, journal, case, result)
    return judged(case, result)


def follow(lab, journal, case, result):
    """The whole life of one case; fills `result`."""
    kind = case.kind
    try:
        case.start()
        kind.act(case)
        if not kind.loses:
            case.heals()
        # What the journal says of it may come a moment later.
        time.sleep(0.5)
        journal.look()
        result.update(journal.report(case))
        result["why"] = why(lab, case) if kind.loses else ""
        result["stalled"] = round(lab.stalls.seconds(case.began), 2)
    except (Broken, OSError, KeyError, ValueError, IndexError) as error:
        result["error"] = f"{type(error).__name__}: {error}"
        journal.look()
        if case.began:
            result.update(journal.report(case))
            result["story"] = [
                (e["at_ms"] - round(case.began * 1000), e["verb"], e["detail"])
                for e in journal.of(case.machine, case.attempt)
                if e["verb"] not in ("produced", "stored", "note")
            ]
    finally:
        try:
            case.finish()
        except (Broken, OSError):
            pass


def judged(case, result):
    kind = case.kind
    for name in ("suspect", "lost", "ended", "next_step", "given_up", "again"):
        result.setdefault(name, None)
    result.setdefault("said", "no verdict")
    lost = result.get("replaced") or result["lost"] is not None or result["given_up"] is not None
    result["false_loss"] = bool(not kind.loses and lost)
    result["right"] = not result["error"] and not result["false_loss"] and kind.accepts(result["said"])
    # A machine that was not heard for `lost_after`, since everything stood still meanwhile, is given up with reason.
    result["void"] = bool(result["false_loss"] and not result["error"] and beyond(case, result["stalled"]))
    if result["void"]:
        result.update(false_loss=False, right=True)
    mark = "VOID" if result["void"] else "good" if result["right"] else "WRONG"
    shown = {k: result[k] for k in ("said", "suspect", "lost", "ended", "next_step", "again", "why") if result.get(k) not in (None, "")}
    say(f"{mark}: {kind.name} #{case.number}: {json.dumps(shown)} {result['error']}")
    if not result["right"] and result.get("story"):
        say(f"   {result['story']}")
    return result


def beyond(case, stalled):
    """Whether a fault lasted longer than a machine may be silent, by the rig's own clock and what stood still."""
    return stalled > 0 and (case.healed or time.time()) - case.began + stalled > LOST_AFTER - SPARE


def why(lab, case):
    """The cause that `outlast why` names."""
    if "why" not in lab.abilities:
        return ""
    code, out, _ = lab.try_outlast("why", case.name, "--attempt", "1", "--json")
    if code != 0:
        return f"exit {code}"
    told = json.loads(out)
    verdict = told.get("verdict", told)
    return str(verdict.get("cause", "?"))


def abilities(lab):
    """What this build can do beyond the least."""
    able = set()
    with open(f"{lab.root}/outlast", "rb") as file:
        if b"OUTLAST_SHUTDOWN_SIGN" in file.read():
            able.add("farewell")
    if lab.try_outlast("config", "check", "--set", "limits.memory=48MiB", f"{lab.root}/project")[0] == 0:
        able.add("limits")
    if lab.try_outlast("why", "--help")[0] == 0:
        able.add("why")
    return able


def all_at_once(lab, journal, seed, first, results):
    """Faults of everything: every machine silent, and a controller that stands still."""
    plain = Kind(None, "all machines silent", False, ("nothing", "suspect"), "five machines, 40 s", None)
    cases = [Case(lab, journal, plain, first + number, seed) for number in range(MANY)]
    with pool_of(lab, MANY) as pool:
        list(pool.map(Case.start, cases))

    def judge(name, act):
        for case in cases:
            case.begin()
        act()
        with pool_of(lab, MANY) as pool:
            list(pool.map(Case.heals, cases))
        journal.look()
        for case in cases:
            told = journal.report(case)
            lost = told["replaced"] or told["lost"] is not None or told["given_up"] is not None
            result = {"kind": name, "number": case.number, "error": "", "why": "", **told}
            result["false_loss"], result["right"] = lost, not lost
            results.append(result)
            say(f"{'WRONG' if lost else 'good'}: {name} #{case.number}: {told['said']} {told['suspect']}")

    def cut():
        for case in cases:
            case.link.cut()
        cases[0].lasts(AWAY)
        alerts = lambda: "fell silent at once" in "".join(lab.try_outlast("controller", "status")[1:])
        cases[0].wait(alerts, "the alert of a mass loss")

    def stand_still():
        pid = lab.controller()
        kill(pid, signal.SIGSTOP)
        try:
            cases[0].lasts(AWAY)
        finally:
            kill(pid, signal.SIGCONT)
        cases[0].lasts(5)
        stalled = lambda: journal.look() or any(entry["verb"] == "stalled" for entry in journal.entries)
        cases[0].wait(stalled, "the controller's word that it stood still")

    try:
        judge("all machines silent, 40 s", cut)
        judge("controller stopped, 40 s", stand_still)
    finally:
        for case in cases:
            case.finish()


def checks(results):
    """What is wrong, in words."""
    wrong = [f"{r['kind']} #{r['number']}: {r['said']} {r['error']}" for r in results if not r["right"]]
    for what, kinds in (("end and the connection with them", WITH_WORD), ("vanish without a packet", WITHOUT_WORD)):
        dead = [max(0, min(v for v in (r["suspect"], r["lost"]) if v is not None) - 1000 * r["stalled"])
                for r in results if r["kind"] in kinds and "stalled" in r and (r["suspect"] is not None or r["lost"] is not None)]
        if not dead:
            continue
        p50, p99 = report.quantile(dead, 50) / 1000, report.quantile(dead, 99) / 1000
        say(f"machines that {what}: noticed after p50 {p50:.2f} s, p99 {p99:.2f} s (at most {SOON} and {LATE}; n={len(dead)})")
        slack = SLACK if len(dead) < FEW else 0
        if p50 > SOON + slack or p99 > LATE + slack:
            wrong.append(f"machines that {what} are noticed too late: p50 {p50:.2f} s, p99 {p99:.2f} s")
    return wrong


def work(lab, options):
    journal = Journal(lab)
    lab.stalls.start()
    lab.python, lab.kernel = sys.executable, threading.Lock()
    lab.outlast("controller", "start")
    lab.abilities = abilities(lab)
    for target in (lab.collect, journal.follow):
        threading.Thread(target=target, daemon=True).start()
    chosen = options.kinds or list(KINDS)
    able = [name for name in chosen if KINDS[name].needs is None or KINDS[name].needs in lab.abilities]
    for name in set(chosen) - set(able):
        say(f"skipped: {name}: this build has no {KINDS[name].needs}")
    results = []
    # Machines that are silent for long: more at a time would be a mass loss, and wait beside nobody else.
    with pool_of(lab, SILENT) as few, pool_of(lab, max(1, options.parallel - SILENT)) as many:
        tasks = [(few if kind.name == "partition, long" else many).submit(inject, lab, journal, kind, number, options.seed)
                 for kind, number in shuffled(options.rounds, able, options.seed)]
        for task in concurrent.futures.as_completed(tasks):
            results.append(task.result())
    if not options.kinds:
        for number in range(max(1, options.rounds // MANY)):
            all_at_once(lab, journal, options.seed + number, number * MANY, results)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--rounds", type=int, default=2, help="injections of each kind")
    parser.add_argument("--parallel", type=int, default=7, help="machines under a fault at once")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--kinds", nargs="*", choices=sorted(KINDS), metavar="NAME")
    parser.add_argument("--out", help="where to leave the results as JSON")
    parser.add_argument("--must", action="store_true", help="fail where the rig cannot run")
    options = parser.parse_args()
    why_not = cannot()
    if why_not:
        say(f"loss: skipped: {why_not}")
        sys.exit(1 if options.must else 0)
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda number, _: sys.exit(128 + number))
    say(f"seed {options.seed}, {options.rounds} rounds, {options.parallel} at once")
    began, lab = time.monotonic(), None
    try:
        lab = Lab(options.program)
        # Each case may hold its first machine and a replacement.
        lab.build(options.emulator, 2 * options.parallel + 4, options.seed)
        results = work(lab, options)
    except Broken as error:
        traceback.print_exc()
        say(f"loss: FAILED: {error}")
        sys.exit(1)
    finally:
        if lab:
            lab.close()
    if options.out:
        with open(options.out, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)
    order = [*KINDS, "all machines silent, 40 s", "controller stopped, 40 s"]
    results.sort(key=lambda r: (order.index(r["kind"]), r["number"]))
    say("\nReported (injected kind by verdict):\n\n" + report.confusion(results, "said"))
    if any(r.get("why") for r in results):
        say("\nCause named by `outlast why`:\n\n" + report.confusion(results, "why"))
    say("\nSeconds from the fault, p50 / p99 / max:\n\n" + report.latencies(results))
    say("")
    wrong = checks(results)
    lost, void = sum(r["false_loss"] for r in results), sum(r.get("void", False) for r in results)
    if void > len(results) // 4:
        wrong.append(f"{void} injections say nothing: this machine stands still too often")
    for line in wrong:
        say(f"WRONG: {line}")
    took = time.monotonic() - began
    say(f"loss: {len(results)} injections of {len({r['kind'] for r in results})} kinds, {lost} false losses, "
        f"{len(wrong)} wrong, seed {options.seed}, {took:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
