"""What is done to machines, and what must come of it. Each kind does one thing to one run on one machine and waits
until its consequence is there; it never judges its own result (`run.py` does, from the journal)."""
import json
import os
import random
import signal
import subprocess
import time

from lab import PATIENCE, Broken, kill, machine_pids, run

# How long a fault of the network lasts, in seconds, where it must not lead to a loss.
SHORT = 10
KINDS = {}


class Kind:
    """`loses`: a new attempt is right. `says`: what may be reported, whole or up to a colon."""

    def __init__(self, act, name, loses, says, about, needs):
        self.act, self.name, self.loses, self.says, self.about, self.needs = act, name, loses, says, about, needs

    def accepts(self, said):
        return any(said == right or said.startswith(f"{right}: ") for right in self.says)


def kind(name, about, loses=False, says=("nothing", "suspect"), needs=None):
    def add(act):
        KINDS[name] = Kind(act, name, loses, says, about, needs)
        return act

    return add


def end_all(case, sig=signal.SIGKILL):
    """Ends every process of a machine at once: none sees another die, and its provider sees no half of it."""
    guard = case.guard()
    kill(guard, signal.SIGSTOP)
    for pid in machine_pids(case.machine):
        kill(pid, signal.SIGSTOP)
    last = machine_pids(case.machine)
    case.begin()
    for pid in sorted(last, key=lambda pid: pid != guard):
        kill(pid, sig)


@kind("machine killed", "every process of it ends at once", True, ("lost: terminated",))
def machine_killed(case):
    end_all(case)
    case.until_next_attempt()


@kind("machine gone", "it ends and its provider does not know it any more", True, ("lost: gone", "lost: terminated"))
def machine_gone(case):
    directory = f"{case.lab.home}/machines/{case.machine}"
    end_all(case)
    try:
        os.rename(directory, f"{case.lab.root}/gone-{case.machine}")
    except FileNotFoundError:
        pass  # The provider was faster.
    case.until_next_attempt()


@kind("host dead", "it ends and no packet of it says so", True, ("lost: terminated", "lost: gone"))
def host_dead(case):
    case.link.cut()
    end_all(case)
    case.until_next_attempt()


@kind("partition, long", "nothing passes until it is replaced", True, ("lost: silent",))
def partition_long(case):
    case.begin()
    case.link.cut()
    case.until_next_attempt()


@kind("operator destroys it", "`outlast destroy MACHINE`", True, ("lost: operator",))
def destroyed(case):
    case.begin()
    case.lab.outlast("destroy", case.machine, "--yes")
    case.until_next_attempt()


@kind("farewell", "it is shut down and says so", True, ("lost: farewell",), needs="farewell")
def farewell(case):
    with open(f"{case.lab.root}/signs/{case.machine}", "w", encoding="ascii"):
        pass
    case.begin()
    kill(case.guard(), signal.SIGTERM)
    case.until_next_attempt()


@kind("program exits 1", "its own error", True, ("ended: exit code 1",))
def exits(case):
    case.order("exit 1")
    case.until_next_attempt()


@kind("program crashes", "SIGSEGV", True, ("ended: signal 11",))
def crashes(case):
    case.order("segv")
    case.until_next_attempt()


@kind("program killed", "SIGKILL from outside, no memory pressure", True, ("ended: signal 9",))
def killed(case):
    case.begin()
    kill(case.pid, signal.SIGKILL)
    case.until_next_attempt()


@kind("out of memory", "it eats more than `limits.memory`", True, ("ended: signal 9 (out of memory)",), needs="limits")
def out_of_memory(case):
    case.order("eat")
    case.until_next_attempt()


@kind("disk full", "its own file system has no room", True, ("ended: exit code 1",))
def disk_full(case):
    place = f"{case.lab.root}/full-{case.key}"
    os.mkdir(place)
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place)
    case.lab.mounts.append(place)
    case.order(f"fill {place}/file")
    case.until_next_attempt()


@kind("agent killed", "SIGKILL; its guard starts it again")
def agent_killed(case):
    case.begin()
    kill(case.agent(), signal.SIGKILL)
    case.lasts(6)


@kind("agent stopped", "SIGSTOP for 6 s: alive and silent")
def agent_stopped(case):
    agent = case.agent()
    case.begin()
    kill(agent, signal.SIGSTOP)
    case.lasts(6)
    kill(agent, signal.SIGCONT)


@kind("partition, short", "nothing passes, healed before `lost_after`")
def partition_short(case):
    case.begin()
    case.link.cut()
    case.lasts(case.random.uniform(4, 20))


@kind("no packet up", "one-way: the controller hears nothing")
def one_way_up(case):
    case.begin()
    case.link.set(up="drop")
    case.lasts(SHORT)


@kind("no packet down", "one-way: the agent hears nothing")
def one_way_down(case):
    case.begin()
    case.link.set(down="drop")
    case.lasts(SHORT)


@kind("connection reset", "RST to both ends, or `ss -K` at the controller's")
def connection_reset(case):
    case.begin()
    for _ in range(3):
        if case.random.random() < 0.5:
            case.link.say("reset")
        else:
            namespace = case.lab.controller_namespace
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{namespace}", "ss", "-K", "dst", case.link.address],
                capture_output=True, check=False,
            )
        case.lasts(2)


@kind("10 % loss", "each packet, both ways")
def loss(case):
    case.begin()
    case.link.set(loss=0.1)
    case.lasts(SHORT + 5)


@kind("500 ms +- 400 ms", "delay with jitter, 1 % duplicated, 1 % out of order")
def jitter(case):
    case.begin()
    case.link.set(delay_ms=500, jitter_ms=400, duplicate=0.01, reorder=0.01)
    case.lasts(SHORT + 5)


@kind("2 s stalls", "all packets are held for 2 s, each 4 s")
def stalls(case):
    case.begin()
    for _ in range(4):
        case.link.say("stall 2000")
        case.lasts(4)


@kind("NAT forgets", "idle for 7 s behind a NAT that forgets after 5 s")
def nat(case):
    agent = case.agent()
    case.begin()
    case.link.set(nat_idle_ms=5000)
    kill(agent, signal.SIGSTOP)
    case.lasts(7)
    kill(agent, signal.SIGCONT)
    # The old connection is dead and nobody says so.
    case.lasts(16)


@kind("100 kbit/s, log flood", "five times more output than the link carries")
def slow(case):
    case.begin()
    case.link.set(rate_bps=100_000, delay_ms=30)
    case.order_quietly("flood 62500")
    case.lasts(20)
    case.order_quietly("flood 0")


@kind("port refused", "connections are reset and new ones refused")
def refused(case):
    case.begin()
    case.link.set(connect="refuse")
    case.link.say("reset")
    case.lasts(SHORT)


@kind("port blocked", "connections are reset and new ones hear nothing")
def blocked(case):
    case.begin()
    case.link.set(connect="drop")
    case.link.say("reset")
    case.lasts(SHORT)


@kind("flapping", "1 s up, 1 s down")
def flapping(case):
    case.begin()
    for _ in range(10):
        case.link.cut()
        case.lasts(1)
        case.link.set(up="pass", down="pass")
        case.lasts(1)


def shuffled(rounds, chosen, seed):
    """Every kind `rounds` times, in drawn order."""
    draw = random.Random(seed)
    order = []
    for number in range(rounds):
        part = [(KINDS[name], number) for name in chosen]
        draw.shuffle(part)
        order.extend(part)
    return order


class Case:
    """One injection: a fresh run on a machine of its own."""

    def __init__(self, lab, journal, kind_, number, seed):
        self.lab, self.journal, self.kind, self.number = lab, journal, kind_, number
        self.key = f"{kind_.name.lower()}-{number}".replace(" ", "-")
        self.key = "".join(c for c in self.key if c.isascii() and (c.isalnum() or c == "-")).strip("-")
        self.home = f"{lab.root}/runs/{self.key}"
        self.random = random.Random(f"{seed}/{self.key}")
        self.began = self.healed = None
        self.name, self.link = "", None

    # --- the run ---

    def start(self):
        self.lasts(0)
        os.makedirs(self.home)
        settings = ["--set", "limits.memory=48MiB"] if self.kind.needs == "limits" else []
        said = self.lab.outlast(
            "run", f"{self.lab.root}/project", "-d", "--name", "r", *settings, "--",
            self.lab.python, "train.py", self.home,
        )
        self.name = said.strip()
        self.wait(self.starts, "its start")
        first = self.starts()[0]
        self.machine, self.attempt, self.pid = first["machine"], first["attempt"], first["pid"]
        self.link = self.lab.link_of(self.machine)
        # Not at the same moment of every heartbeat.
        self.wait(lambda: self.last_step() >= 12, "its first steps")
        self.lasts(self.random.uniform(0, 1))

    def finish(self):
        """Ends the run the quick way and waits until its machines are gone."""
        if self.link:
            self.link.clear()
        if self.name and not self.lab.stopping.is_set():
            self.lab.try_outlast("destroy", self.name, "--yes")

    # --- what its files say ---

    def lines(self, name):
        """Whole lines: what is just being written ends without its newline."""
        try:
            with open(f"{self.home}/{name}", encoding="ascii") as file:
                return [line[:-1] for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def starts(self):
        return [json.loads(line) for line in self.lines("starts")]

    def steps(self):
        return [(a, int(s), float(t)) for a, s, t in (line.split() for line in self.lines("steps"))]

    def last_step(self):
        lines = self.lines("steps")
        return int(lines[-1].split()[1]) if lines else 0

    # --- acting ---

    def begin(self):
        """The fault happens now."""
        self.began, self.healed = time.time(), None

    def order(self, text):
        """Has the program do something to itself; the time is the program's own."""
        self.order_quietly(text)
        self.wait(lambda: self.lines("ends"), "the program's own word")
        self.began = float(self.lines("ends")[-1].split()[1])

    def order_quietly(self, text):
        with open(f"{self.home}/order.new", "w", encoding="ascii") as file:
            file.write(text)
        os.rename(f"{self.home}/order.new", f"{self.home}/order")

    def lasts(self, seconds):
        if self.lab.stopping.wait(seconds):
            raise Broken("the rig is ending")

    def guard(self):
        return self.pid_in("guard.json")

    def agent(self):
        """The agent that lives: each records itself, and one that was killed leaves its record."""
        records, found = f"{self.lab.home}/machines/{self.machine}/agents", []

        def lives():
            pids = [self.pid_in(f"agents/{name}") for name in os.listdir(records) if name.endswith(".json")]
            found[:] = set(pids) & machine_pids(self.machine)
            return len(found) == 1

        self.wait(lives, "its one agent")
        return found[0]

    def pid_in(self, name):
        with open(f"{self.lab.home}/machines/{self.machine}/{name}", encoding="ascii") as file:
            return json.load(file)["pid"]

    # --- waiting ---

    def wait(self, is_so, what):
        until = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > until or self.lab.stopping.is_set():
                raise Broken(f"{self.key}: {what} did not come within {PATIENCE} s")
            time.sleep(0.05)

    def until_next_attempt(self):
        """Until a step of another attempt, or until it is clear that none comes."""

        def is_so():
            return any(attempt != self.attempt for attempt, *_ in self.steps())

        self.wait(is_so, "another attempt")

    def heals(self):
        """After a fault that ends nothing: the machine is heard again and the training was never touched."""
        self.link.clear()
        self.healed = healed = time.time()
        self.wait(lambda: self.journal.is_well(self.machine) or self.replaced(), "the machine's recovery")
        self.wait(lambda: self.steps()[-1][2] > healed or self.replaced(), "a step after healing")

    def replaced(self):
        return len(self.starts()) > 1
