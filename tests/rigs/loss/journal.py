"""Follows the journal of the whole installation, and finds in it what was reported of one injection and when."""
import json
import subprocess
import threading


class Journal:
    def __init__(self, lab):
        self.lab, self.entries, self.lock = lab, [], threading.Lock()
        self.last, self.failed = 0, 0

    def follow(self):
        while not self.lab.stopping.wait(1.0):
            self.look()

    def look(self):
        with self.lock:
            try:
                code, out, _ = self.lab.try_outlast("events", "--after", str(self.last), "--limit", "5000", "--json")
            except subprocess.TimeoutExpired:
                # The next look sees it.
                code, out = 1, ""
            if code != 0:
                self.failed += 1
                return
            for entry in json.loads(out):
                entry["detail"] = json.loads(entry.pop("detail_json") or "{}")
                self.entries.append(entry)
                self.last = max(self.last, entry["seq"])

    def of(self, *objects):
        return [entry for entry in list(self.entries) if entry["object"] in objects]

    def is_well(self, machine):
        """Whether the last word about it is that it is attached."""
        last = [e["verb"] for e in self.of(machine) if e["verb"] in ("attached", "suspect", "given-up", "lost", "release")]
        return bool(last) and last[-1] == "attached"

    def report(self, case):
        """What the product said of an injection: verdict, hypothesis and times in ms from the fault."""
        began = case.began * 1000
        mine = [e for e in self.of(case.machine, case.attempt) if e["at_ms"] >= began - 1]

        def first(verb):
            return next((e for e in mine if e["verb"] == verb), None)

        def after(entry):
            return None if entry is None else max(0, round(entry["at_ms"] - began))

        guesses = [e["detail"].get("hypothesis") for e in mine if e["verb"] in ("suspect", "hypothesis")]
        lost = first("lost") or first("attempt-lost")
        ended = first("ended")
        said = "nothing"
        if guesses:
            said = f"suspect: {guesses[-1]}"
        if ended:
            memory = " (out of memory)" if ended["detail"].get("out_of_memory") else ""
            said = f"ended: {exit_text(ended['detail'])}{memory}"
        attempt_lost = first("attempt-lost")
        if attempt_lost or lost:
            said = f"lost: {(attempt_lost or lost)['detail'].get('cause')}"
        back = [e for e in mine if e["verb"] == "attached" and e["at_ms"] > began]
        news = [t for attempt, _, t in case.steps() if attempt != case.attempt]
        return {
            "said": said,
            "hypotheses": guesses,
            "suspect": after(first("suspect")),
            "given_up": after(first("given-up")),
            "lost": after(attempt_lost or lost),
            "ended": after(ended),
            # When it was heard again, from the end of the fault; 0: before that.
            "again": max(0, round(back[-1]["at_ms"] - case.healed * 1000)) if back and case.healed else None,
            "next_step": round((news[0] - case.began) * 1000) if news else None,
            "replaced": len(case.starts()) > 1,
        }


def exit_text(detail):
    status = detail.get("exit", detail)
    if not isinstance(status, dict):
        return str(status)
    if "code" in status:
        return f"exit code {status['code']}"
    signal = status.get("signal", status.get("number"))
    if signal is not None:
        return f"signal {signal['number'] if isinstance(signal, dict) else signal}"
    return json.dumps(status, sort_keys=True)

