"""A laboratory of network namespaces, made and deleted here: one for the controller, one for each machine, and between
them links whose quality is chosen while they run (`link_emulator`). Every name carries this process's id; no other
namespace, address or process is touched."""
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
from stalls import Stalls  # noqa: E402

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
CONTROLLER = "10.231.255.1"
# Seconds that nothing takes which is only waited for, however slow the machine is.
PATIENCE = 180


class Broken(Exception):
    """The rig itself cannot go on."""


def cannot():
    """Why this machine cannot hold a laboratory; None: it can."""
    if sys.platform != "linux":
        return "this is not Linux"
    if os.geteuid() != 0:
        return "not root"
    for tool in ("ip", "nsenter", "ss"):
        if shutil.which(tool) is None:
            return f"there is no `{tool}`"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    name = f"ol{os.getpid():x}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"network namespaces cannot be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return None


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Broken(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


def open_tun(namespace, device):
    """A TUN device inside a namespace, as an open file."""
    result = []

    def work():
        # Only this thread moves; the file stays with its namespace.
        try:
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            os.close(handle)
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
            result.append(tun)
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise Broken(f"no TUN device {device} in {namespace}: {result[0]}")
    return result[0]


class Link:
    """The link between the controller and one machine's namespace."""

    def __init__(self, lab, number, emulator, seed):
        self.number, self.namespace = number, f"{lab.prefix}m{number}"
        self.socket, self.lock = f"{lab.root}/link{number}", threading.Lock()
        lab.add_namespace(self.namespace)
        near, far = open_tun(lab.controller_namespace, f"c{number}"), open_tun(self.namespace, "m0")
        high, low = divmod(number + 1, 250)
        here, there = f"10.231.{high}.{low}", f"10.231.{100 + high}.{low}"
        for namespace, device, own, other in (
            (lab.controller_namespace, f"c{number}", here, there),
            (self.namespace, "m0", there, here),
        ):
            run("ip", "-n", namespace, "addr", "add", own, "peer", other, "dev", device)
            run("ip", "-n", namespace, "link", "set", device, "up", "mtu", "1500")
        run("ip", "-n", self.namespace, "route", "add", "default", "dev", "m0")
        self.address = there
        self.process = subprocess.Popen(
            [emulator, self.socket, str(seed)], stdin=near, stdout=far, stderr=lab.trash, start_new_session=True
        )
        os.close(near)
        os.close(far)
        self.client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.client.bind(f"{self.socket}.client")
        self.client.settimeout(PATIENCE)
        until = time.monotonic() + PATIENCE
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > until:
                raise Broken(f"the link emulator of {self.namespace} did not start; see {lab.root}/trash.log")
            time.sleep(0.01)

    def say(self, command):
        with self.lock:
            self.client.sendto(command.encode(), self.socket)
            answer = self.client.recv(4096).decode()
        if not answer.startswith("ok"):
            raise Broken(f"the link said: {answer}")
        return answer

    def set(self, **settings):
        return self.say("set " + " ".join(f"{key}={value}" for key, value in settings.items()))

    def clear(self):
        return self.say("clear")

    def cut(self):
        return self.set(up="drop", down="drop")


class Lab:
    """Namespaces, links and one installation of the program."""

    def __init__(self, program):
        self.program = os.path.abspath(program)
        self.prefix = f"ol{os.getpid():x}"
        self.controller_namespace = f"{self.prefix}c"
        self.root = tempfile.mkdtemp(prefix="ol", dir="/tmp")
        self.home = f"{self.root}/h"
        self.namespaces, self.links, self.mounts = [], [], []
        self.trash = open(f"{self.root}/trash.log", "ab", buffering=0)
        self.stopping, self.stalls = threading.Event(), Stalls(self.root)

    def build(self, emulator, links, seed):
        for name in ("free", "taken", "signs", "runs", "project"):
            os.mkdir(f"{self.root}/{name}")
        with open(f"{self.root}/project/outlast.toml", "w", encoding="ascii") as file:
            file.write('[project]\nname = "loss"\n[environment]\nkind = "none"\n')
        shutil.copy(f"{HERE}/train.py", f"{self.root}/project/train.py")
        # A build that happens meanwhile must not exchange the program.
        shutil.copy(self.program, f"{self.root}/outlast")
        self.add_namespace(self.controller_namespace)
        run("ip", "-n", self.controller_namespace, "addr", "add", f"{CONTROLLER}/32", "dev", "lo")
        for number in range(links):
            self.links.append(Link(self, number, emulator, seed * 1000 + number))
            self.give_back(self.links[-1])

    def add_namespace(self, name):
        run("ip", "netns", "add", name)
        self.namespaces.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def give_back(self, link):
        link.clear()
        with open(f"{self.root}/free.{link.number:03d}", "w", encoding="ascii") as file:
            file.write(f"{link.number} {link.namespace}")
        os.rename(f"{self.root}/free.{link.number:03d}", f"{self.root}/free/{time.time_ns():020d}.{link.number:03d}")

    def link_of(self, machine):
        with open(f"{self.root}/taken/{machine}", encoding="ascii") as file:
            return self.links[int(file.read().split()[0])]

    def collect(self):
        """Gives namespaces back whose machines are gone."""
        while not self.stopping.wait(0.5):
            for machine in os.listdir(f"{self.root}/taken"):
                if os.path.exists(f"{self.home}/machines/{machine}") or machine_pids(machine):
                    continue
                link = self.link_of(machine)
                os.unlink(f"{self.root}/taken/{machine}")
                self.give_back(link)

    def command(self, *args):
        return ["nsenter", f"--net=/run/netns/{self.controller_namespace}", f"{self.root}/outlast", *args]

    def environment(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OUTLAST_", "XDG_"))}
        wrap = f"{sys.executable} -S {HERE}/place.py {self.root}"
        return {
            **kept,
            "OUTLAST_HOME": self.home,
            "OUTLAST_CONTROLLER_LISTEN": CONTROLLER,
            "OUTLAST_LOCAL_WRAP": wrap,
            "XDG_CONFIG_HOME": f"{self.root}/config",
        }

    def outlast(self, *args, timeout=PATIENCE):
        return run(*self.command(*args), env=self.environment(), cwd=self.root, stdin=subprocess.DEVNULL, timeout=timeout)

    def try_outlast(self, *args, timeout=PATIENCE):
        """The exit code and what it printed, whatever it was."""
        done = subprocess.run(
            self.command(*args), env=self.environment(), cwd=self.root, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout,
        )
        return done.returncode, done.stdout, done.stderr

    def controller(self):
        with open(f"{self.home}/controller.json", encoding="ascii") as file:
            return json.load(file)["pid"]

    def close(self):
        """Ends what was started and deletes what was made, whatever state it is in."""
        self.stopping.set()
        # It would make its file again in what is deleted below.
        if self.stalls.is_alive():
            self.stalls.end()
        if os.path.exists(f"{self.home}/hub.json"):
            try:
                os.kill(self.controller(), signal.SIGCONT)
                self.try_outlast("controller", "stop", timeout=30)
            except (OSError, ValueError, KeyError, subprocess.SubprocessError):
                pass
        own = self.home.encode() + b"/"
        for _ in range(50):
            left = [pid for pid in pids() if pid != os.getpid() and own in facts(pid)]
            for pid in left:
                kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.05)
        for link in self.links:
            link.process.kill()
            link.process.wait()
        for mount in reversed(self.mounts):
            subprocess.run(["umount", "-l", mount], capture_output=True)
        for name in reversed(self.namespaces):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        self.trash.close()
        shutil.rmtree(self.root, ignore_errors=True)


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def facts(pid):
    """Command line, environment and directory of a process, as bytes."""
    found = b""
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                found += file.read() + b"\0"
        except OSError:
            pass
    try:
        found += os.readlink(f"/proc/{pid}/cwd").encode() + b"/"
    except OSError:
        pass
    return found


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return int(fields[1]) if fields[0] not in "ZX" else 0
    except (OSError, IndexError):
        return 0


def machine_pids(machine):
    """Every process of one machine."""
    mark, place = f"OUTLAST_MACHINE_ID={machine}".encode(), f"/machines/{machine}/".encode()
    parents = {pid: parent(pid) for pid in pids() if pid != os.getpid()}
    found = {pid for pid in parents if parents[pid] and any(m in facts(pid) for m in (mark, place))}
    grew = True
    while grew:
        more = {pid for pid, above in parents.items() if above in found} - found
        found |= more
        grew = bool(more)
    return found


def kill(pid, sig):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass
