#!/usr/bin/env python3
"""What storing, restoring and coding checkpoints costs, beside cp, zstd and restic on the same data in the same run.

    cargo build --release -p artifacts --example measure
    artifacts.py --measure target/release/examples/measure --python PYTHON_WITH_NUMPY [--dir DIR] [--runs 3]

The data is made here: a network of 3.7 million parameters trains with Adam on a task that is made up, in fp32, and
its weights and both moments are saved every few steps; a fine-tuning of it with fresh moments and many words that
do not occur; frozen weights with adapters, in safetensors and in PyTorch's
zip layout with a pickle that grows; 1.09 GB of training states with a quarter of the moments zero. With `--tree`, 50,000 source files. Times are medians
of the runs, processor time is that of the whole process tree. Needs NumPy (and zstandard, for one column) and about 8 GB of room.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STATES = r"""
import sys, json, struct, numpy as np
out = sys.argv[1]
r = np.random.default_rng(7)
def tensors(path, named, meta=''):
    header, at = {'__metadata__': {'m': meta}}, 0
    for name, t in named.items():
        header[name] = {'dtype': {'float32': 'F32', 'uint16': 'BF16'}[str(t.dtype)], 'shape': list(t.shape),
                        'data_offsets': [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header).encode()
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text)
        for t in named.values(): f.write(t.tobytes())
# Training: tokens -> embedding -> two wide layers -> tokens, Adam, on text made by a hidden table.
V, D, H = 4096, 256, 1536
table = r.permutation(V)
w = {'emb': r.standard_normal((V, D), dtype=np.float32) * .02, 'w1': r.standard_normal((D, H), dtype=np.float32) * .06,
     'w2': r.standard_normal((H, D), dtype=np.float32) * .025, 'out': r.standard_normal((D, V), dtype=np.float32) * .06,
     'w3': r.standard_normal((D, H), dtype=np.float32) * .06, 'w4': r.standard_normal((H, D), dtype=np.float32) * .025}
m = {k: np.zeros_like(x) for k, x in w.items()}; v = {k: np.zeros_like(x) for k, x in w.items()}
def step(n, lr):
    x = np.minimum(r.zipf(1.3, 256) - 1, V - 1); y = table[x]
    h0 = w['emb'][x]; a = h0 @ w['w1']; ra = np.maximum(a, 0); h1 = h0 + ra @ w['w2']
    b = h1 @ w['w3']; rb = np.maximum(b, 0); h2 = h1 + rb @ w['w4']
    z = h2 @ w['out']; z -= z.max(1, keepdims=True); p = np.exp(z); p /= p.sum(1, keepdims=True)
    p[np.arange(256), y] -= 1; p /= 256
    g = {'out': h2.T @ p}; d2 = p @ w['out'].T
    db = (d2 @ w['w4'].T) * (b > 0); g['w4'] = rb.T @ d2; g['w3'] = h1.T @ db; d1 = d2 + db @ w['w3'].T
    da = (d1 @ w['w2'].T) * (a > 0); g['w2'] = ra.T @ d1; g['w1'] = h0.T @ da; d0 = d1 + da @ w['w1'].T
    g['emb'] = np.zeros_like(w['emb']); np.add.at(g['emb'], x, d0)
    adam(g, n, lr)
def adam(g, n, lr):
    for k in w:
        m[k] += (g[k] - m[k]) * np.float32(.1); v[k] += (g[k] ** 2 - v[k]) * np.float32(.001)
        w[k] -= np.float32(lr) * (m[k] / np.float32(1 - .9 ** n)) / (np.sqrt(v[k] / np.float32(1 - .999 ** n)) + np.float32(1e-8))
def bits(): return {k: ((t.view(np.uint32) + 0x7fff + ((t.view(np.uint32) >> 16) & 1)) >> 16).astype(np.uint16) for k, t in w.items()}
def save(kind, n):
    tensors(f'{out}/{kind}-{n}.safetensors', {f'{s}.{k}': t[k] for s, t in (('w', w), ('m', m), ('v', v)) for k in t})
    tensors(f'{out}/{kind}-bf16-{n}.safetensors', bits())
for n in range(1, 301):
    step(n, 1e-3)
    if n in (20, 40, 60, 280, 300): save('train', n)
# Fine-tuning of what was trained, without its output layer: whether sentences hold a word of a kind. Half of the
# weights are embeddings of words, many of which do not occur, as in encoders that are fine-tuned.
emb = np.concatenate([w['emb'], r.standard_normal((3072, D), dtype=np.float32) * np.float32(.06)])
w = {'emb': emb, 'head': r.standard_normal((D, 2), dtype=np.float32) * np.float32(.06), **{k: w[k] for k in ('w1', 'w2', 'w3', 'w4')}}
m = {k: np.zeros_like(x) for k, x in w.items()}; v = {k: np.zeros_like(x) for k, x in w.items()}
kind = r.random(V) < .03
def tune(n, lr):
    x = np.minimum(r.zipf(1.3, (16, 32)) - 1, V - 1); y = kind[x].any(1).astype(int)
    h0 = w['emb'][x]; a = h0 @ w['w1']; ra = np.maximum(a, 0); h1 = h0 + ra @ w['w2']
    b = h1 @ w['w3']; rb = np.maximum(b, 0); h2 = h1 + rb @ w['w4']; mean = h2.mean(1)
    z = mean @ w['head']; p = np.exp(z - z.max(1, keepdims=True)); p /= p.sum(1, keepdims=True)
    p[np.arange(16), y] -= 1; p /= np.float32(16)
    g = {'head': mean.T @ p}; d2 = np.repeat((p @ w['head'].T / np.float32(32))[:, None], 32, 1)
    flat = lambda t: t.reshape(-1, t.shape[-1])
    db = (d2 @ w['w4'].T) * (b > 0); g['w4'] = flat(rb).T @ flat(d2); g['w3'] = flat(h1).T @ flat(db); d1 = d2 + db @ w['w3'].T
    da = (d1 @ w['w2'].T) * (a > 0); g['w2'] = flat(ra).T @ flat(d1); g['w1'] = flat(h0).T @ flat(da); d0 = d1 + da @ w['w1'].T
    g['emb'] = np.zeros_like(w['emb']); np.add.at(g['emb'], x.ravel(), flat(d0))
    adam(g, n, lr)
for n in range(1, 61):
    tune(n, 2e-5)
    if n % 15 == 0: save('fine', n)
# A frozen base with adapters, saved three times, in both formats.
import zipfile
base = {f'base{n}': r.standard_normal((512, 2048), dtype=np.float32) * np.float32(.02) for n in range(22)}
pickled = r.bytes(60_000)
def zipped(path, named, grown):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as z:
        def put(entry, data):
            info = zipfile.ZipInfo(f'archive/{entry}')
            pad = -(z.start_dir + 34 + len(info.filename)) % 64
            info.extra = b'FB' + pad.to_bytes(2, 'little') + b'Z' * pad
            z.writestr(info, data)
        put('data.pkl', pickled + r.bytes(grown))
        for n, t in enumerate(named.values()): put(f'data/{n}', t.tobytes())
        put('version', b'3\n')
for n in range(3):
    adapters = {f'adapter{k}': r.standard_normal((8, 1280), dtype=np.float32) for k in range(22)}
    tensors(f'{out}/lora-{n}.safetensors', base | adapters)
    zipped(f'{out}/lora-{n}.pt', base | adapters, 3000 * n)
# 1.09 GB: four states, moments of a quarter of the rows never touched.
import os
os.mkdir(f'{out}/large')
for n in range(4):
    named = {}
    for k in range(11):
        w_ = r.standard_normal((2048, 1024), dtype=np.float32) * np.float32(.02)
        named[f'w{k}'] = w_
        for s in 'mv':
            t = r.standard_normal((2048, 1024), dtype=np.float32) * np.float32(1e-3)
            t = t * t if s == 'v' else t
            t[:512] = 0
            named[f'{s}{k}'] = t
    tensors(f'{out}/large/state{n}.safetensors', named)
"""


# The method by which the targets were set: differences of numbers in the order of values, their bytes apart, zstd -1.
METHOD = r"""
import sys, numpy as np, zstandard
def load(file, width):
    raw = open(file, 'rb').read(); raw = raw[8 + int.from_bytes(raw[:8], 'little'):]
    return np.frombuffer(raw[:len(raw) // width * width], dtype=np.uint32 if width == 4 else np.uint16)
base, file, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
bits, now, then = 8 * width, load(file, width), load(base, width)
kind, signed = now.dtype.type, np.int32 if width == 4 else np.int16
order = lambda x: np.where(x >> kind(bits - 1), x ^ kind((1 << bits - 1) - 1), x)
step = (order(now) - order(then)).view(signed)
folded = ((step << 1) ^ (step >> (bits - 1))).view(now.dtype)
size, each, pack = 0, (1 << 20) // width, zstandard.ZstdCompressor(level=1)
for at in range(0, folded.size, each):
    part = folded[at:at + each]
    size += len(pack.compress(b''.join((part >> 8 * n).astype(np.uint8).tobytes() for n in reversed(range(width)))))
print(now.nbytes / size)
"""


def measured(command):
    """Wall and processor seconds and peak KiB of a command with its children, and what it printed."""
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    with process.stdout as stdout:
        out = stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed: {process.returncode}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss, out


def tree_size(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def gather(sources, tree, count):
    """Copies the first files of directories, no large ones and none that decides about others; their bytes."""
    total, left_out = 0, (".git", "__pycache__", "node_modules", "outputs", ".venv")
    for number, source in enumerate(sources):
        for above, below, names in os.walk(source):
            below[:] = sorted(name for name in below if name not in left_out)
            for name in sorted(names):
                file = Path(above, name)
                if name in left_out or name.endswith("ignore") or file.is_symlink() or not file.is_file():
                    continue
                if file.stat().st_size > 64 << 10:
                    continue
                if count == 0:
                    return total
                copy = tree / str(number) / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                total += copy.stat().st_size
                count -= 1
    sys.exit(f"--tree: {count} files more are needed")


class Bench:
    def __init__(self, arguments):
        self.measure, self.runs = arguments.measure, arguments.runs
        self.sources, self.tmpfs = arguments.tree, arguments.tmpfs
        self.dir = Path(tempfile.mkdtemp(prefix="artifacts.", dir=arguments.dir))
        self.data = self.dir / "data"
        self.data.mkdir()
        self.python = arguments.python
        if arguments.only != "trees":
            subprocess.run([arguments.python, "-c", STATES, self.data], check=True)

    def fresh(self, name):
        path = self.dir / name
        shutil.rmtree(path, ignore_errors=True)
        return path

    def medians(self, name, before, command, stored=None):
        rows = []
        for _ in range(self.runs):
            before()
            rows.append(measured(command))
        wall, cpu, peak = (statistics.median(row[n] for row in rows) for n in (0, 1, 2))
        told = json.loads(rows[-1][3]) if rows[-1][3].startswith("{") else {}
        size = told.get("sent") or (tree_size(stored) if stored else 0)
        room = f"{size / 1e6:.0f}" if size else ""
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak / 1024:.0f} | {room} |", flush=True)

    def storing(self):
        large = self.data / "large"
        size = sum(file.stat().st_size for file in large.iterdir())
        print(f"\n{size / 1e6:.0f} MB of training states, a local store\n")
        print("| what | wall s | CPU s | peak MiB | MB stored |\n|---|---|---|---|---|")
        copy, store, back = self.dir / "copy", self.dir / "store", self.dir / "back"
        clear = lambda *paths: lambda: [shutil.rmtree(path, ignore_errors=True) for path in paths]
        self.medians("cp -r", clear(copy), ["cp", "-r", large, copy])
        self.medians("cp -r, synced", clear(copy), ["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', large, copy])
        clear(copy)()
        self.medians("zstd -1, one thread", lambda: None, ["sh", "-c", 'zstd -q -1 -T1 -c "$0"/* >"$1"', large, copy], copy)
        copy.unlink()
        self.medians("publish", clear(store), [self.measure, "publish", store, 1, large])
        self.medians("verify", lambda: None, [self.measure, "verify", store, 1])
        self.medians("restore, verified", clear(back), [self.measure, "restore", store, 1, back])
        subprocess.run(["diff", "-r", large, back], check=True)
        clear(back)()
        restic = shutil.which("restic")
        repository = self.dir / "restic"
        cache = self.dir / "cache"
        os.environ.update(RESTIC_PASSWORD="bench", RESTIC_REPOSITORY=str(repository), RESTIC_CACHE_DIR=str(cache))
        if restic:
            def init():
                clear(repository, cache)()
                subprocess.run([restic, "init", "-q"], check=True)
            self.medians("restic backup", init, [restic, "backup", "-q", large], repository)
            self.medians("restic restore", clear(back), [restic, "restore", "-q", "latest", "--target", back])
            clear(back)()
        self.change(large)
        def forget():
            shutil.rmtree(store / "run/g0000000000000002", ignore_errors=True)
        self.medians("publish, 10 % changed", forget, [self.measure, "publish", store, 2, large])
        if restic:
            # Once: what it stored does not change again.
            wall, cpu, peak, _ = measured([restic, "backup", "-q", large])
            print(f"| restic backup, 10 % changed, one run | {wall:.2f} | {cpu:.2f} | {peak / 1024:.0f} | |")
        clear(store, repository, cache)()

    def change(self, large):
        """Overwrites a tenth of each file, in one piece."""
        for file in large.iterdir():
            size = file.stat().st_size
            with open(file, "r+b") as f:
                f.seek(size // 3)
                f.write(os.urandom(size // 10))

    def trees(self):
        """Source trees: 50,000 files of the directories that were given."""
        if not self.sources:
            print("\nno --tree was given: source trees are not measured")
            return
        tree = self.dir / "tree"
        size = gather(self.sources, tree, 50_000)
        quick = Path(tempfile.mkdtemp(prefix="artifacts.", dir=self.tmpfs))
        try:
            print(f"\n50,000 files, {size / 1e6:.0f} MB; stores and copies on {self.tmpfs}\n")
            print("| what | wall s | CPU s | peak MiB | MB stored |\n|---|---|---|---|---|")
            nothing = lambda: None
            clear = lambda *names: lambda: [shutil.rmtree(quick / name, ignore_errors=True) for name in names]
            self.medians("find -type f", nothing, ["sh", "-c", 'find "$0" -type f >"$1"', tree, quick / "names"])
            self.medians("unchanged: nothing is read", nothing, [self.measure, "unchanged", tree])
            self.medians("cp -a", clear("copy"), ["cp", "-a", tree, quick / "copy"])
            clear("copy")()
            self.medians("tar \\| zstd -1", nothing, ["sh", "-c", 'tar -C "$0" -cf - . | zstd -q -1 -c >"$1"', tree, quick / "tar"], quick / "tar")
            self.medians("first sync: published", clear("store"), [self.measure, "sync", quick / "store", tree])
            self.medians("first sync: restored", clear("back"), [self.measure, "restore", quick / "store", 1, quick / "back"])
            subprocess.run(["diff", "-r", tree, quick / "back"], check=True)
            self.restic_tree(tree, quick)
        finally:
            shutil.rmtree(quick, ignore_errors=True)

    def restic_tree(self, tree, quick):
        restic = shutil.which("restic")
        if not restic:
            return
        os.environ.update(RESTIC_PASSWORD="bench", RESTIC_REPOSITORY=str(quick / "restic"), RESTIC_CACHE_DIR=str(quick / "cache"))
        subprocess.run([restic, "init", "-q"], check=True)
        for what in ("restic backup, first", "restic backup, unchanged"):
            wall, cpu, peak, _ = measured([restic, "backup", "-q", tree])
            print(f"| {what}, one run | {wall:.2f} | {cpu:.2f} | {peak / 1024:.0f} | {tree_size(quick / 'restic') / 1e6:.0f} |")

    def ratios(self):
        print("\n| data | MB | sent MB, first | sent MB, next | zstd -1 MB | sent / truly changed |\n|---|---|---|---|---|---|")
        for name, files, changed in (
            ("training state, fp32", ["train-20.safetensors", "train-40.safetensors"], None),
            ("bf16 weights", ["train-bf16-20.safetensors", "train-bf16-40.safetensors"], None),
            ("adapters, safetensors", ["lora-0.safetensors", "lora-1.safetensors"], 22 * 8 * 1280 * 4),
            ("adapters, .pt with a longer pickle", ["lora-0.pt", "lora-1.pt"], 22 * 8 * 1280 * 4 + 63_000),
        ):
            store = self.fresh("store")
            sent = []
            for generation, file in enumerate(files, 1):
                out = measured([self.measure, "publish", store, generation, self.data / file])[3]
                sent.append(json.loads(out)["sent"] / 1e6)
            path = self.data / files[-1]
            packed = measured(["sh", "-c", 'zstd -q -1 -c "$0" | wc -c', path])[3]
            share = f"{sent[1] * 1e6 / changed:.3f}" if changed else ""
            print(f"| {name} | {path.stat().st_size / 1e6:.1f} | {sent[0]:.2f} | {sent[1]:.2f} | {int(packed) / 1e6:.2f} | {share} |", flush=True)

    def later(self):
        """Bytes on the wire of a save once an earlier one is kept, beside those of others that have both."""
        print("\nA save after an earlier one, link of 25 MB/s\n")
        print("| data | MB | target | ratio | alone | the target's method | zstd -1 | restic |\n|---|---|---|---|---|---|---|---|")
        for name, target, base, file in (
            ("pre-training, fp32, next save", 1.2, "train-280", "train-300"),
            ("pre-training, fp32, at first", 1.2, "train-20", "train-40"),
            ("fine-tuning, fp32, next save", 2.5, "fine-45", "fine-60"),
            ("fine-tuning, fp32, three saves apart", 2.5, "fine-15", "fine-60"),
            ("fine-tuning, bf16 weights, next save", 8, "fine-bf16-45", "fine-bf16-60"),
            ("fine-tuning, bf16 weights, three saves apart", 8, "fine-bf16-15", "fine-bf16-60"),
            ("pre-training, bf16 weights, next save", 8, "train-bf16-280", "train-bf16-300"),
        ):
            base, path = (self.data / f"{n}.safetensors" for n in (base, file))
            told = json.loads(measured([self.measure, "later", self.dir, base, path])[3])
            size = path.stat().st_size
            packed = int(measured(["sh", "-c", 'zstd -q -1 -c "$0" | wc -c', path])[3])
            print(
                f"| {name} | {size / 1e6:.1f} | {target} | {size / told['sent']:.2f} | {size / told['alone']:.2f} "
                f"| {self.method(base, path)} | {size / packed:.2f} | {self.restic_ratio(base, path)} |",
                flush=True,
            )

    def method(self, base, path):
        width = 2 if "bf16" in path.name else 4
        done = subprocess.run([self.python, "-c", METHOD, base, path, str(width)], capture_output=True, text=True)
        return f"{float(done.stdout):.2f}" if done.returncode == 0 else "zstandard is not there"

    def restic_ratio(self, base, path):
        if not shutil.which("restic"):
            return ""
        repository, cache = self.fresh("restic"), self.fresh("cache")
        os.environ.update(RESTIC_PASSWORD="bench", RESTIC_REPOSITORY=str(repository), RESTIC_CACHE_DIR=str(cache))
        sizes = []
        for command in (["init"], ["backup", base], ["backup", path]):
            subprocess.run(["restic", "-q", *command], check=True)
            sizes.append(tree_size(repository))
        return f"{path.stat().st_size / (sizes[2] - sizes[1]):.2f}"

    def codecs(self):
        print("\n| data, 1 MiB chunks, one core | ratio | coded MB/s | coded and checked MB/s | decoded MB/s |\n|---|---|---|---|---|")
        for files in (
            ["train-300"],
            ["train-bf16-300"],
            ["large/state0"],
            ["train-300", "train-280"],
            ["fine-60", "fine-45"],
            ["fine-bf16-60", "fine-bf16-15"],
        ):
            told = json.loads(measured([self.measure, "codec", *(self.data / f"{n}.safetensors" for n in files)])[3])
            print(f"| {', difference to '.join(files)} | {told['bytes'] / told['stored']:.3f} | {told['code_mb_s']:.0f} | {told['encode_mb_s']:.0f} | {told['decode_mb_s']:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", required=True, type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--dir")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tree", action="append", type=Path, help="take source files from here; may be given again")
    parser.add_argument("--tmpfs", default="/dev/shm", type=Path)
    parser.add_argument("--only", choices=["storing", "ratios", "codecs", "later", "trees"])
    arguments = parser.parse_args()
    bench = Bench(arguments)
    try:
        for part in ("codecs", "later", "ratios", "trees", "storing"):
            if arguments.only in (None, part):
                getattr(bench, part)()
    finally:
        shutil.rmtree(bench.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
