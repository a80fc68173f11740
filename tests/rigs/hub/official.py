"""The fake hub under the official client, and what a real run fetched from it, read offline by that client.

    python3 official.py --program target/debug/outlast --venv target/tmp/hub

Ends with 77 where the client cannot be installed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from client import with_package  # noqa: E402

WANTED = "huggingface_hub==2.4.0"
HERE = pathlib.Path(__file__).resolve().parent
COMMIT = "a1" * 20
TOKEN = "hf_ofTheRig0123456789"
FILES = {"config.json": b'{"n": 1}', "deep/er/vocab.txt": b"a\nb\n", "model.safetensors": bytes(range(256)) * 400}
ROWS = {"data/train.csv": b"x,y\n" * 9_000, "README.md": b"# rows\n"}
# What a program does that knows nothing of outlast.
PROGRAM = """
import hashlib, json, os, pathlib
from huggingface_hub import hf_hub_download, snapshot_download
found = {}
for repo, kind in (("org/tiny", "model"), ("org/rows", "dataset")):
    root = pathlib.Path(snapshot_download(repo, repo_type=kind, local_files_only=True))
    files = [path for path in root.rglob("*") if path.is_file()]
    found[repo] = {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
one = hf_hub_download("org/tiny", "config.json", local_files_only=True)
found["one"] = pathlib.Path(one).read_text()
found["online"] = os.path.samefile(hf_hub_download("org/tiny", "model.safetensors"),
    hf_hub_download("org/tiny", "model.safetensors", local_files_only=True))
pathlib.Path(os.environ["FOUND"]).write_text(json.dumps(found))
"""


def sums(files: dict) -> dict:
    import hashlib
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def put(state: pathlib.Path, repository: str, files: dict) -> None:
    at = state / "repos" / repository
    for path, data in files.items():
        file = at / "commits" / COMMIT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (at / "refs").mkdir()
    (at / "refs" / "main").write_text(COMMIT)
    (at / "token").write_text(TOKEN)


def judged(python: pathlib.Path, address: str, work: pathlib.Path) -> None:
    """The official client fetches from the fake, and is refused where it must be."""
    code = ("import sys, huggingface_hub as h; "
            "print(h.snapshot_download(sys.argv[1], repo_type=sys.argv[2])); "
            "print([s.size for s in h.HfApi().repo_info(sys.argv[1], repo_type=sys.argv[2], files_metadata=True).siblings])")
    for repository, kind, files in (("org/tiny", "model", FILES), ("org/rows", "dataset", ROWS)):
        env = {"PATH": os.environ["PATH"], "HF_ENDPOINT": address, "HF_HOME": str(work / "theirs"), "HF_TOKEN": TOKEN,
               "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*"}
        done = subprocess.run([python, "-c", code, repository, kind], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        root, sizes = done.stdout.strip().splitlines()[-2:]
        for path, data in files.items():
            assert (pathlib.Path(root) / path).read_bytes() == data, path
        assert sorted(json.loads(sizes)) == sorted(len(data) for data in files.values()), sizes
        refused = subprocess.run([python, "-c", code, repository, kind], env={**env, "HF_TOKEN": "hf_other", "HF_HOME": str(work / "none")},
                                 capture_output=True, text=True, timeout=300)
        assert refused.returncode != 0 and "GatedRepoError" in refused.stderr, refused.stderr
    print("hub: the official client takes the fake for a hub")


def fetched(program: pathlib.Path, python: pathlib.Path, address: str, work: pathlib.Path) -> None:
    """A real run fetches, and the official client reads it without asking anybody."""
    project = work / "project"
    project.mkdir()
    (project / "job.py").write_text(PROGRAM)
    found = work / "found.json"
    (project / "outlast.toml").write_text(
        f'[run]\ncommand = ["{python}", "job.py"]\nenv = {{ HF_ENDPOINT = "{address}", FOUND = "{found}", NO_PROXY = "*" }}\n'
        '[environment]\nkind = "none"\n[retry]\nfailures = 0\n[secrets]\nHF_TOKEN = { env = "MY_TOKEN" }\n'
        '[data]\nhf = ["org/tiny", "dataset:org/rows"]\n')
    env = {"PATH": os.environ["PATH"], "HOME": str(work), "OUTLAST_HOME": str(work / "home"), "MY_TOKEN": TOKEN}
    try:
        done = subprocess.run([program, "run", str(project)], env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    finally:
        subprocess.run([program, "controller", "stop"], env=env, capture_output=True, timeout=180)
    told = json.loads(found.read_text())
    assert told["org/tiny"] == sums(FILES) and told["org/rows"] == sums(ROWS), told
    assert told["one"] == FILES["config.json"].decode() and told["online"] is True, told
    print("hub: the official client reads offline what the run fetched, and fetches nothing again")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    options = parser.parse_args()
    python = with_package(options.venv.resolve(), WANTED)
    with tempfile.TemporaryDirectory(prefix="hub", dir="/tmp") as work:
        work = pathlib.Path(work)
        state = work / "state"
        state.mkdir()
        put(state, "models/org/tiny", FILES)
        put(state, "datasets/org/rows", ROWS)
        fake = subprocess.Popen([sys.executable, "-B", HERE / "hub.py", state], stdin=subprocess.PIPE)
        try:
            until = time.monotonic() + 180
            while not (state / "address").exists():
                assert fake.poll() is None and time.monotonic() < until, "the fake did not start"
                time.sleep(0.02)
            address = (state / "address").read_text()
            judged(python, address, work)
            fetched(options.program.resolve(), python, address, work)
        finally:
            fake.stdin.close()
            fake.wait(timeout=180)


if __name__ == "__main__":
    main()
