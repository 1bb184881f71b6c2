"""One measurement at a time on a device, whatever becomes of the process that holds it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hybridsim.errors import HybridsimError
from hybridsim.measure import missing, sweep
from hybridsim.measure.lock import FOLDER_VARIABLE, device_lock, lock_path

CPU = torch.device("cpu")
HOLD = """
import time, torch
from hybridsim.measure.lock import device_lock
with device_lock(torch.device("cpu")):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "locks"))


def test_a_second_process_waits_and_a_killed_one_leaves_the_device_free(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HybridsimError, match=r"device=cpu: another process .* for 0\.2 s"):
            device_lock(CPU, timeout_s=0.2).__enter__()
        assert "waiting for another measurement on cpu" in caplog.text
        # What measures takes the lock, and says so where it cannot.
        monkeypatch.setattr(sweep, "_measure", lambda *args: pytest.fail("measured all the same"))
        options = sweep.parse_options(["specs=gla_tiny", "device=cpu", "budget_s=0.2"])
        with pytest.raises(HybridsimError, match="device=cpu: another process"):
            sweep.work(options)
        holder.kill()
        holder.wait()
        began = time.monotonic()
        with device_lock(CPU, timeout_s=60):
            assert time.monotonic() - began < 30


def test_measuring_what_is_missing_holds_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def measure(*args: object) -> None:
        with pytest.raises(HybridsimError, match="another process"):
            other_lock().__enter__()
        tried.append(args)

    def other_lock():  # type: ignore[no-untyped-def]
        code = "import torch; from hybridsim.measure.lock import device_lock as d\n"
        code += "with d(torch.device('cpu'), timeout_s=0.1): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode:
            raise HybridsimError(done.stderr.strip().splitlines()[-1])
        return device_lock(CPU)

    monkeypatch.setattr(missing, "_measure", measure)
    spec, hardware = SimpleNamespace(), SimpleNamespace(name="cpu", num_devices=1)
    missing.measure_missing(spec, hardware, [], missing.Dtypes())  # type: ignore[arg-type]
    assert len(tried) == 1


def test_a_gpu_is_known_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    # Device 0 of one process may be device 1 of another: CUDA_VISIBLE_DEVICES renumbers them.
    properties = SimpleNamespace(uuid="1234-abcd")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    paths = {lock_path(torch.device("cuda", index)) for index in (0, 1)}
    assert {path.name for path in paths} == {"gpu-1234-abcd.lock"}


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "locks"))
    with (
        pytest.raises(HybridsimError, match=r"HYBRIDSIM_LOCKS=.*no lock can be made there"),
        device_lock(CPU),
    ):
        pass
