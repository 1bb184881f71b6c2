"""A PostgreSQL server of the tests' own: installed where it is missing, started in a new folder.

PostgreSQL refuses to run as root, so there it runs as the user `nobody`. It listens on a socket in
its folder only, and waits for no disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

UNPRIVILEGED = "nobody"
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=")
START_S = 60.0


def programs() -> Path:
    """Return the folder of initdb and postgres; they are installed where there is none."""
    with FileLock(Path(tempfile.gettempdir()) / "hybridsim-install-postgres.lock"):
        if _installed() is None and os.geteuid() == 0 and shutil.which("apt-get"):
            _install()
    found = _installed()
    assert found, "these tests need PostgreSQL's initdb and postgres: install it (`postgresql`)"
    return found


def _install() -> None:
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "check": True}
    subprocess.run(["apt-get", "-qq", "update"], **quiet)
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "postgresql"]
    subprocess.run(install, **quiet)


def _installed() -> Path | None:
    # Debian keeps servers off the PATH.
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    named = shutil.which("initdb")
    folders = [*reversed(packaged), *([Path(named).resolve().parent] if named else [])]
    return next(
        (f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None
    )


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a server; the URL of an empty database is given."""
    bin_folder = programs()
    folder = Path(tempfile.mkdtemp(prefix="hybridsim-postgres-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)
        user = {"user": UNPRIVILEGED, "extra_groups": []}
    common = {"cwd": folder, "env": os.environ | {"LC_ALL": "C"}, **user}
    init = ["-D", "data", "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([bin_folder / "initdb", *init], check=True, stdout=subprocess.DEVNULL, **common)
    options = [word for setting in SETTINGS for word in ("-c", setting)]
    with (folder / "log").open("wb") as log:
        command = [bin_folder / "postgres", "-D", "data", "-k", str(folder), *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, **common)
    try:
        _wait(process, folder)
        yield f"postgresql://tests@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)  # ends clients' connections too
        process.wait(timeout=START_S)
        shutil.rmtree(folder)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return once the server answers."""
    import psycopg

    deadline = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(f"host={folder} user=tests dbname=postgres").close()
            return
        except psycopg.OperationalError:
            running = process.poll() is None and time.monotonic() < deadline
            assert running, (folder / "log").read_text()
            time.sleep(0.05)
