"""A folder has one run at a time; a lock ends with its process, however that ends."""

import os
import signal
import subprocess
import sys

import pytest

from training.common.folder_lock import FolderInUse, check_free, locked

HOLD = (
    "import sys, time; from training.common.folder_lock import locked\n"
    "with locked(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_holds_it(tmp_path, holder):
    for attempt in (check_free, lambda folder: locked(folder).__enter__()):
        with pytest.raises(FolderInUse, match=rf"run is in use by another run \(process {holder.pid} on .*\)"):
            attempt(tmp_path / "run")


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_it_is_free_when_the_process_has_ended(tmp_path, holder, end):
    holder.send_signal(end) if end else holder.stdin.close()
    holder.wait()
    check_free(tmp_path / "run")
    with locked(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == ["in_use.lock"]
    assert os.listdir(tmp_path / "run") == []


def test_looking_writes_nothing_and_a_failed_run_lets_go(tmp_path):
    check_free(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(KeyError), locked(tmp_path / "run"):
        raise KeyError
    with locked(tmp_path / "run"):
        pass
