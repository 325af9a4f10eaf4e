"""``lifecycle run``: a consumer as a process of its own."""

import atexit
import ctypes
import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

import click

from lifecycle.clock import monotonic, pause
from lifecycle.consumer.cli.options import Argument, command
from lifecycle.consumer.cli.reload import restart_on_changes
from lifecycle.consumer.consumer import Consumer
from lifecycle.consumer.loading import load_queue
from lifecycle.consumer.log_output import FORMATS, LogOptions, buffer_lines
from lifecycle.consumer.os_signals import restore_handlers, set_handler
from lifecycle.consumer.states import STOPPED
from lifecycle.consumer.workers.types import GREENLET, WORKER_TYPES

__all__ = ["run"]

DETAILS: Final = """
SIGINT (Ctrl-C) finishes the running tasks. SIGTERM interrupts and requeues them; so does a second signal, at once.
SIGHUP finishes the running tasks and starts again, with the code that is on the disk then.
"""
STOP_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
GREENLET_PAUSE_SECONDS: Final = 0.01
_WORKER_THREAD: Final = re.compile(r"lifecycle-\d+")
EXIT_SECONDS: Final = 1.0
"""The least time that the end of the process may take, also without any grace."""


@command("run", DETAILS)
@click.argument("target", cls=Argument, metavar="MODULE:QUEUE", about="The queue, as in tasks:queue.")
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(min=1),
    metavar="COUNT",
    default=1,
    show_default=True,
    help="How many tasks run at once.",
)
@click.option(
    "-k",
    "--worker-type",
    metavar="TYPE",
    default=WORKER_TYPES[0],
    show_default=True,
    help=f"{' or '.join(WORKER_TYPES)}.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="Seconds that interrupted tasks have to clean up.",
)
@click.option(
    "--start", metavar="METHOD", default="spawn", show_default=True, help="How worker processes start: spawn or fork."
)
@click.option(
    "--max-tasks",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="After so many tasks, go on in a new process: of each worker, or of all.",
)
@click.option(
    "--max-memory",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="The same, once a process uses so many megabytes (MiB).",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file that exists while the consumer is ready.",
)
@click.option("--health", metavar="[HOST:]PORT", help="Answer /ready and /live there, over HTTP.")
@click.option("--reload", is_flag=True, help="Start again, as for SIGHUP, when a module in this folder changes.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    metavar="LEVEL",
    help="Log lines of this level and higher: debug, info, warning, error or critical.",
)
@click.option(
    "--log-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configure logging as this file says: .ini, .json or .toml, as for logging.config.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"The form of log lines: {' or '.join(FORMATS)}, an object a line.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log everything that this library logs.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
def run(
    target: str,
    workers: int,
    worker_type: str,
    grace: float,
    start: str,
    max_tasks: int | None,
    max_memory: int | None,
    ready_file: Path | None,
    health: str | None,
    reload: bool,
    log_level: str | None,
    log_config: Path | None,
    log_format: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Run a consumer until it is stopped; exec the same command again if a new start is due."""
    log_options = _log_options(log_level, log_config, log_format, verbose=verbose, quiet=quiet)
    if worker_type == GREENLET:
        from lifecycle.consumer.workers.gevent_ import restart_patched

        restart_patched()
    consumer: Consumer | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        # Only before the consumer has handlers of its own, and once it has stopped: then nothing is left to be done.
        if consumer is not None and consumer.state == STOPPED:
            return
        if number == signal.SIGTERM:
            os._exit(0)  # a stop like any other: there are no tasks yet
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)

    set_handler(STOP_SIGNALS, handle, {number: signal.getsignal(number) for number in STOP_SIGNALS})
    atexit.register(_ignore_signals)  # called last: else the interpreter's own end would restore what ends the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        buffer_lines()
        log_options.before_import()
        queue = load_queue(target)
        log_options.after_import()
        consumer = Consumer(
            queue,
            workers,
            worker_type,
            grace=grace,
            start_method=start,
            max_tasks=max_tasks,
            max_memory=None if max_memory is None else max_memory * 2**20,
            ready_file=ready_file,
            health=health,
            restart_from=target,
            log_options=log_options,
        )
        if reload:
            restart_on_changes()
        if consumer.run():
            # A signal from here on is not lost: it stays pending, across the exec, until the next run takes it.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- the command as it was given
    except BaseException:
        atexit.unregister(_ignore_signals)
        restore_handlers(STOP_SIGNALS)
        raise
    if worker_type == GREENLET:
        _wait_for_greenlets()
    _exit_without_threads(grace)


def _ignore_signals() -> None:
    # First behind the interpreter's back: it complains of a signal that comes while it forgets the handler.
    ignore = ctypes.CDLL(None).signal
    ignore.argtypes, ignore.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    for number in STOP_SIGNALS:
        ignore(number, int(signal.SIG_IGN))
    signal.pthread_sigmask(signal.SIG_BLOCK, [])  # calls the handlers of signals that have come until now
    sys.unraisablehook = _show_unraisable  # one may still be on its way through another thread
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _show_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if not (args.exc_type is OSError and "ignored due to race condition" in str(args.exc_value)):
        sys.__unraisablehook__(args)


def _wait_for_greenlets() -> None:
    """Let workers end that were interrupted just before: else the interpreter's end prints a traceback for each."""
    deadline = monotonic() + EXIT_SECONDS
    while monotonic() < deadline and any(_WORKER_THREAD.fullmatch(one.name) for one in threading.enumerate()):
        pause(GREENLET_PAUSE_SECONDS)


def _log_options(
    level: str | None, config: Path | None, line_format: str | None, *, verbose: bool, quiet: bool
) -> LogOptions:
    if quiet and (verbose or level is not None):
        raise click.UsageError("give -q, or -v and --log-level, not both")
    if config is not None and line_format is not None:
        raise click.UsageError("give --log-config or --log-format, not both: the file has its formats")
    name = "WARNING" if quiet else None if level is None else level.upper()
    number = None if name is None else logging.getLevelNamesMapping()[name]
    return LogOptions(number, verbose, line_format, None if config is None else config.absolute())


def _exit_without_threads(grace: float) -> None:
    """End the process after `grace` seconds, even if functions have left threads: Python would wait for them."""

    def leave() -> None:
        logging.getLogger("lifecycle.consumer").warning("exiting without threads that tasks have left running")
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(max(grace, EXIT_SECONDS), leave)
    timer.daemon = True  # without such threads the process ends before, and the timer with it
    timer.start()
