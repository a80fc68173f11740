"""Virtual environments in which the rigs find real clients and servers: made once, kept between runs."""

import fcntl
import pathlib
import subprocess
import sys

# What a rig ends with where what it needs cannot be had.
CANNOT = 77


def with_package(venv: pathlib.Path, wanted: str) -> pathlib.Path:
    """A Python that has the package, installed if need be; ends with 77 where it cannot be had."""
    venv.mkdir(parents=True, exist_ok=True)
    ready, python = venv / "ready", venv / "bin" / "python"
    # Several rigs may begin at once.
    with open(venv / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ready.exists() and ready.read_text() == wanted):
            try:
                subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, stdout=2, timeout=300)
                install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "5"]
                subprocess.run([str(python), *install, "--only-binary", ":all:", wanted], check=True, stdout=2, timeout=900)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{wanted} cannot be installed: {error}", file=sys.stderr)
                sys.exit(CANNOT)
            ready.write_text(wanted)
    return python
