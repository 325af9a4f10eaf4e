"""The demo as text: each scenario with its promise, its code, its signals and its proof; at the end a table of all."""

import signal
import textwrap
from typing import Final

import attrs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lifecycle.consumer.demo.environment import RefusalEvent, SignalEvent
from lifecycle.consumer.demo.scenarios import Scenario
from lifecycle.core.table import INTERRUPTED, LIFECYCLE
from lifecycle.diagrams.palette import terminal_colour
from lifecycle.escaping import printable

__all__ = ["ScenarioResult", "Story"]

NARROW_COLUMNS: Final = 72
"""Below this width the table leaves out the promises, which the scenarios have said."""
WIDEST_COLUMNS: Final = 120
LABEL_COLUMNS: Final = len("    promise")
GOOD, BAD, FAINT, CODE, ACTION = "green", "red", "dim", "bold", "yellow"
SIGNAL_COLUMNS: Final = max(len(state.signal) for state in LIFECYCLE.states)
KEPT, BROKEN, KILLED, REFUSED, ARROW = "✓", "✗", "☠", "✗", "→"
ASCII: Final = str.maketrans({KEPT: "+", BROKEN: "x", KILLED: "x", ARROW: ">", "…": "..."})
"""For an output that has no other characters."""
ACTIONS: Final = {
    signal.SIGKILL: (f"{KILLED} kill -9 {{pid}}", f"bold {BAD}", ""),
    signal.SIGTERM: (f"{ARROW} kill -TERM {{pid}}", ACTION, "consumer {pid} is asked to stop"),
    signal.SIGSTOP: (f"{ARROW} kill -STOP {{pid}}", ACTION, "consumer {pid} freezes"),
    signal.SIGCONT: (f"{ARROW} kill -CONT {{pid}}", ACTION, "consumer {pid} wakes and reports its outcome"),
    None: (f"{ARROW} consumer {{pid}} starts", ACTION, ""),
}
"""Each action with its text, its style, and a note."""


@attrs.frozen
class ScenarioResult:
    """The result of a scenario, as it is printed with ``--json``."""

    title: str
    name: str
    promise: str
    promised: tuple[str, ...]
    came: tuple[str, ...]
    seconds: float
    """From the call to the last promised signal."""
    proof: str
    """The stored facts that were checked."""
    fault: str | None
    """The faults, on one line; ``None`` if there are none."""


class Story:
    """Prints a demo while it happens; the `Observer` of its environment."""

    def __init__(self, console: Console, *, delay: float, lease: float) -> None:
        """`delay`, `lease`: seconds."""
        self._console, self._delay, self._lease = console, delay, lease
        self._width = min(console.width, WIDEST_COLUMNS)
        self._unicode = console.encoding.lower().startswith("utf")
        self._began_at: float | None = None
        self._holder: SignalEvent | None = None
        """The last start of the current scenario's task."""

    # Before and after a scenario ----------------------------------------------------------------------------------

    def open(self, where: str, consumer: int, seconds: float) -> None:
        """Print the circumstances of all scenarios."""
        self._print(Text(f"Real consumers, in processes of their own, run each scenario on {where}."))
        numbers = f" {consumer}/1 is its worker 1." if self._width < NARROW_COLUMNS else ""
        self._print(
            Text(f"Consumer {consumer} has started in {seconds:.2f} s. Its lease is {self._lease:g} s.{numbers}")
        )

    def begin(self, number: int, scenario: Scenario, at: float) -> None:
        """Print the head of a scenario that begins at `at` (UTC seconds)."""
        self._began_at, self._holder = at, None
        code, _, about = scenario.code.format(delay=f"{self._delay:g}", lease=f"{self._lease:g}").partition("  # ")
        self._print(Text.assemble("\n", (f"{number:2}  {scenario.title}", "bold")))
        self._labelled("promise", Text(scenario.promise))
        comment = f"# {about}"
        if LABEL_COLUMNS + 2 + len(code) + 2 + len(comment) <= self._width:
            self._labelled("code", Text.assemble((code, CODE), (f"  {comment}", FAINT)))
        else:
            self._labelled("code", Text.assemble((code, CODE), (f"\n{comment}", FAINT)))

    def end(self, result: ScenarioResult) -> None:
        """Print the proof of a scenario, or its faults."""
        self._began_at = None
        if result.fault is None:
            self._labelled("proof", Text(f"{KEPT} {printable(result.proof)}", GOOD))
        else:
            self._labelled("fault", Text(f"{BROKEN} {printable(result.fault)}", f"bold {BAD}"))

    # Within a scenario --------------------------------------------------------------------------------------------

    def on_signal(self, event: SignalEvent) -> None:
        """Print a signal: when, which, at which attempt, by which worker."""
        state = LIFECYCLE.by_signal(event.signal)
        note = event.note or (self._reason_of_interruption(event) if state == INTERRUPTED else "")
        self._holder = event if event.attempt and self._holder is None else self._holder
        who = self._who(event.consumer, event.worker)
        attempt = f"attempt {event.attempt}" if event.attempt else ""
        self._line(event.at, Text(f"{event.signal:{SIGNAL_COLUMNS}}", terminal_colour(state.name)), attempt, who, note)

    def on_refusal(self, event: RefusalEvent) -> None:
        """Print a refused outcome, in the words of the consumer's log."""
        what = Text(f"{f'{REFUSED} refused':{SIGNAL_COLUMNS}}", f"bold {BAD}")
        self._line(event.at, what, f"attempt {event.attempt}", self._who(event.consumer), event.text)

    def on_action(self, consumer: int, action: signal.Signals | None, at: float) -> None:
        """Print an operator's action."""
        if self._began_at is not None:
            text, style, note = ACTIONS[action]
            self._line(at, Text(text.format(pid=consumer), style), note.format(pid=consumer))

    def _who(self, consumer: int, worker: str | None = None) -> str:
        """Return the name of a consumer or of one of its workers; in a narrow terminal only their numbers."""
        if self._width < NARROW_COLUMNS:
            return f"{consumer}/{worker}" if worker is not None else f"{consumer}"
        return f"consumer {consumer}, worker {worker}" if worker is not None else f"consumer {consumer}"

    def _reason_of_interruption(self, event: SignalEvent) -> str:
        """Return why a task was taken from its worker."""
        held = self._holder
        if held is None or held.consumer == event.consumer:
            return ""
        if event.at < held.at + self._lease:  # no lease of this attempt can have lapsed
            return f"consumer {held.consumer} has ended, its lease is void"
        return f"the lease of consumer {held.consumer} has lapsed"

    def _line(self, at: float, what: Text, *parts: str) -> None:
        """Print a line; parts that do not fit are printed below."""
        seconds = max(0.0, at - self._began_at) if self._began_at is not None else 0.0
        lines = [Text.assemble(f"  {seconds:6.2f} s  ", what)]
        indent = 12
        for part in filter(None, map(printable, parts)):
            if lines[-1].cell_len + 2 + len(part) <= self._width:
                lines[-1].append(f"  {part}", FAINT)
            else:
                folded = textwrap.wrap(part, max(self._width - indent, 20))
                lines += [Text(" " * indent + below, FAINT) for below in folded]
        for line in lines:
            self._print(line)

    # At the end ---------------------------------------------------------------------------------------------------

    def close(self, results: list[ScenarioResult], next_steps: list[tuple[str, str]]) -> None:
        """Print the table of all scenarios, the sum, and, if no promise is broken, the next commands.

        `next_steps`: commands, each with its purpose.
        """
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("scenario", no_wrap=True)
        if self._width >= NARROW_COLUMNS:
            table.add_column("promise")
        table.add_column("proof")
        table.add_column("seconds", justify="right", no_wrap=True)
        for result in results:
            good = result.fault is None
            proof = Text(f"{KEPT} {result.proof}", GOOD) if good else Text(f"{BROKEN} {result.fault}", f"bold {BAD}")
            promise = [Text(result.promise)] if self._width >= NARROW_COLUMNS else []
            cells = [Text(result.name), *promise, proof, Text(f"{result.seconds:.2f}", FAINT)]
            table.add_row(*map(self._writable, cells))
        self._print(Text())
        self._console.print(table, width=self._width)
        self._print(Text())
        broken = sum(result.fault is not None for result in results)
        count = sum(len(result.came) for result in results)
        if broken:
            self._print(Text(f"{BROKEN} {broken} of {len(results)} promises broken.", f"bold {BAD}"))
            return
        kept = f"{KEPT} {len(results)} promises kept, {count} signals in the order of the table."
        self._print(Text(kept, f"bold {GOOD}"))
        self._print(Text("\nNext:", "bold"))
        columns = max((len(command) for command, _ in next_steps), default=0)
        fits = all(2 + columns + 4 + len(purpose) <= self._width for _, purpose in next_steps)
        for command, purpose in next_steps:
            comment = (f"# {purpose}", FAINT)
            if fits:
                self._print(Text.assemble("  ", (f"{command:{columns}}", CODE), "  ", comment))
            else:
                self._print(Text.assemble("  ", comment, "\n  ", (command, CODE)))

    # Printing -----------------------------------------------------------------------------------------------------

    def _labelled(self, label: str, text: Text) -> None:
        """Print a text beside its label; its further lines are indented."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=LABEL_COLUMNS, style=FAINT)
        grid.add_column()
        grid.add_row(f"    {label}", self._writable(text))
        self._console.print(grid, width=self._width)

    def _print(self, text: Text) -> None:
        self._console.print(self._writable(text), highlight=False, soft_wrap=True)

    def _writable(self, text: Text) -> Text:
        """Return a text in characters that the output has."""
        if not self._unicode:
            text.plain = text.plain.translate(ASCII).encode("ascii", "backslashreplace").decode()
        return text
