"""Names of processes: whether a process of this host has ended can be seen from its name."""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from support.forks import Fork, ignore_fork_warning
from support.processes import until

from lifecycle.execution import process_name
from lifecycle.execution.process_name import ProcessName, has_ended, name_with_process

PROGRAM = "from lifecycle.execution.process_name import ProcessName; print(ProcessName()(), flush=True); input()"


@contextmanager
def another_process():
    """Start a process that prints its name and waits; yield the process and the name."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_killed_process_has_ended_and_a_frozen_one_has_not():
    """A process has ended once it is killed, even if its parent has not waited for it; a frozen process has not."""
    with another_process() as (process, name):
        workers = name, f"{name}/1", f"{name}/caller-2"
        assert [has_ended(worker) for worker in workers] == [False] * 3
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert [has_ended(worker) for worker in workers] == [False] * 3
        process.kill()
        until(lambda: has_ended(name), "the end")  # a zombie: nobody has waited for it
        process.wait()
        assert [has_ended(worker) for worker in workers] == [True] * 3


def test_number_of_an_ended_process_may_be_used_again():
    """A name with the number of a living process that has started at another time is that of an ended process."""
    own = ProcessName()()
    start = own[-10:-6]
    other = f"{own[:-10]}{(int(start, 16) + 1) % 16**4:04x}{own[-6:]}"
    assert (has_ended(own), has_ended(other)) == (False, True)


def test_worker_with_a_process_has_ended_with_its_consumer_only():
    """A worker process that has died is its consumer's business: it has ended for others once both have."""
    with another_process() as (consumer, name), another_process() as (child, _):
        worker = name_with_process(f"{name}/1", child.pid)
        child.kill()
        child.wait()
        assert not has_ended(worker)
        consumer.kill()
        consumer.wait()
        assert has_ended(worker)
    with another_process() as (consumer, name), another_process() as (child, _):
        worker = name_with_process(f"{name}/1", child.pid)
        consumer.kill()
        consumer.wait()
        assert not has_ended(worker)  # its process goes on for a moment


@pytest.mark.parametrize(
    "change",
    [
        lambda host, pid, token: f"{host}:{pid}:{int(token[:8], 16) ^ 1:08x}{token[8:]}",  # another boot, or container
        lambda host, pid, token: f"{host}:{pid}:{token[-6:]}",  # a system that does not say
        lambda host, pid, token: f"{host}:{pid}:{token}0",
        lambda host, pid, token: token,
        lambda host, pid, token: f"{host}:one:{token}",
        lambda host, pid, token: f"{host}:{10**30}:{token}",
        lambda host, pid, token: f"{host}:{pid}:{token}/1@",
        lambda host, pid, token: f"{host}:{pid}:{token}/1@one.abcd",
        lambda host, pid, token: f"{host}:{pid}:{token}/1@{os.getpid()}.?",
        lambda host, pid, token: "worker",
        lambda host, pid, token: "",
    ],
)
def test_name_in_doubt_counts_as_alive(change):
    """The name of another host, boot or container, or of another form, says nothing: its process counts as alive."""
    with another_process() as (_, name):
        pass
    assert has_ended(name)
    assert not has_ended(change(*name.split(":")))


@pytest.mark.parametrize("broken", ["self", "sys", "stat", "other"])
def test_nothing_is_known_without_the_process_folder(broken, tmp_path, monkeypatch):
    """Where ``/proc`` is missing or shows other processes, nothing has ended, and names have random digits only."""
    with another_process() as (_, name):
        pass
    process_name._place.cache_clear()
    proc = tmp_path / "proc"
    proc.mkdir()
    if broken != "self":
        (proc / "self").symlink_to("1" if broken == "other" else str(os.getpid()))
    if broken in ("stat", "other"):
        (proc / "sys").symlink_to("/proc/sys")
    monkeypatch.setattr(process_name, "_PROC", proc)
    try:
        assert len(ProcessName()().rpartition(":")[2]) == 6
        assert has_ended(name) is False
    finally:
        process_name._place.cache_clear()


@ignore_fork_warning
def test_names_differ():
    """Two names of one process differ, and so do those of a forked child and its parent."""
    name = ProcessName()
    assert name() == name()
    assert name() != ProcessName()()
    parent, child = multiprocessing.Pipe()
    before = name()
    fork = Fork(lambda: child.send(name()))
    assert fork.step()
    assert parent.recv() != before
    assert fork.wait()
