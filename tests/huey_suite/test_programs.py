"""Programs in Huey's manner, run on Huey and, with the import changed, on `lifecycle.huey`: they print the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle.huey.signals import SIGNAL_ENQUEUED, SIGNAL_SCHEDULED

pytestmark = pytest.mark.untraced

PROGRAMS = Path(__file__).parent / "programs"


def start(program, package, folder):
    """Start a program with Huey's names from a package; the process."""
    text = (PROGRAMS / f"{program}.py").read_text()
    folder.mkdir()
    file = folder / f"{program}.py"
    file.write_text(re.sub(r"^from huey\b", f"from {package}", text, flags=re.MULTILINE))
    environment = os.environ | {"PROGRAM_DB": str(folder / "queue.db")}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, file], env=environment, stdout=pipe, stderr=pipe, text=True)


def printed(process):
    """Return the page that a program has printed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out)


def without_queueing_when_due(signals):
    """Return signals without `enqueued` after `scheduled`: Huey puts a task that is due into its queue first."""
    return [one for before, one in zip([None, *signals], signals, strict=False)
            if (before, one) != (SIGNAL_SCHEDULED, SIGNAL_ENQUEUED)]  # fmt: skip


@pytest.mark.parametrize("program", sorted(path.stem for path in PROGRAMS.glob("*.py")))
def test_a_program_prints_the_same_on_both(program, tmp_path):
    """A Huey program whose import is changed gives the same values, errors and signals for each task."""
    processes = [start(program, package, tmp_path / package) for package in ("huey", "lifecycle.huey")]
    theirs, ours = map(printed, processes)
    theirs["signals"] = sorted(without_queueing_when_due(signals) for signals in theirs["signals"])
    assert ours == theirs
