"""Pages of the documentation: their blocks, and a runner of the examples in the blocks."""

import contextlib
import doctest
import importlib
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import NamedTuple

import psycopg
from generate.pages import EXAMPLES, example_folder
from support.processes import environment, until

from lifecycle import TaskQueue

STOP_TIMEOUT_SECONDS = 60.0
"""For a process to stop, on a busy machine."""
SHORT_ID = re.compile(r"[0-9a-f]{6}(?=  )")
"""The id of a task as it is printed on a terminal, in the first column."""
PORT = "8000"
"""The port of the servers on the pages; a test gives them a free one."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """The number of its first line in the page."""


def blocks(page):
    """Yield the fenced blocks of a page, in order."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text[: found.start(2)].count("\n") + 1)


def commands(text):
    """Yield the commands of a console block, each as its words, the program's name without its folder."""
    for line in text.splitlines():
        for part in re.split(r"&&|\|", line.removeprefix("$ ")) if line.startswith("$ ") else ():
            first, *rest = shlex.split(part, comments=True)
            yield [first.rpartition("/")[2], *rest]


def sessions(text):
    """Yield the commands of a console block, each with the output below it."""
    for part in re.split(r"^(?=\$ )", text, flags=re.MULTILINE):
        command, _, output = part.partition("\n")
        yield command, output


class PageRunner:
    """Runs the blocks of a page one after the other, in one namespace and a folder of its own."""

    def __init__(self, page, folder, urls):
        """`urls`: the URLs on the page, each with the URL of the server that the tests have."""
        self.page, self.folder, self.urls = page, folder, urls
        self.names = {"__name__": "tasks"}
        self.files, self.ids = set(), {}
        self.exits = ExitStack()
        self.example = example_folder(page.read_text())
        if self.example:
            shutil.copytree(EXAMPLES / self.example, folder, dirs_exist_ok=True)
            self.files |= {path.stem for path in folder.rglob("*.py")}
            self.port = free_port()
            for module in sorted(self.files):
                self.set_aside(module)

    def set_aside(self, name):
        """Let a module of the page have this name; at the end the module of that name before is back, `tests`, say."""
        before = sys.modules.pop(name, None)
        if before is not None:
            self.exits.callback(sys.modules.__setitem__, name, before)
        self.exits.callback(sys.modules.pop, name, None)

    def run(self, block):
        """Run one block."""
        for shown, real in self.urls.items():
            block = block._replace(text=block.text.replace(shown, real))
        if self.example:
            block = block._replace(text=block.text.replace(PORT, str(self.port)))
        if named := re.match(r"# (pyproject\.toml|test_\w+\.py)\n", block.text):
            (self.folder / named[1]).write_text(block.text)
        elif block.language == "python":
            named = re.match(r"# ([\w/]+)\.py\n", block.text)
            if named and self.example:
                return  # a file of the example, which is in the folder
            if named:
                self.write(named[1], block.text)
            else:
                code = compile("\n" * (block.line - 1) + block.text, self.page, "exec")  # its lines are the page's
                exec(code, self.names)  # noqa: S102 -- the page is ours
        elif block.language == "pycon":
            self.check_answers(block)
        elif block.language == "console":
            for command, output in sessions(block.text):
                for words in commands(command):
                    self.start(words, output)

    def write(self, name, text):
        """Save and import a file whose name is the first line of its text."""
        (self.folder / f"{name}.py").write_text(text)
        self.files.add(name)
        self.set_aside(name)
        module = importlib.import_module(name)
        self.names |= {key: value for key, value in vars(module).items() if not key.startswith("__")}
        self.exits.callback(close_all, vars(module))

    def check_answers(self, block):
        """Run the statements of an interactive session, and compare the answers."""
        example = doctest.DocTestParser().get_doctest(
            block.text, self.names, self.page.name, str(self.page), block.line - 1
        )
        report = []
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
            example, out=report.append, clear_globs=False
        )
        self.names.update(example.globs)
        assert not failed, "".join(report)

    def start(self, words, shown):
        """Start the consumer or the server of a command, or run its program, if the page has the files for that.

        A program that ends must print what is shown, if anything is.
        """
        program, *rest = words
        if program == "lifecycle":
            if not {word.partition(":")[0] for word in rest} & self.files:
                return
            if rest[0] == "run":
                self.exits.callback(stop_consumer, self.process("-m", *words))
            else:
                self.compare(shown, self.printed("-m", program, *(self.ids.get(word, word) for word in rest)))
        elif self.example and (program in ("uvicorn", "flask") or "runserver" in rest):
            server = self.process(*(rest if program == "python" else ("-m", *words)))
            self.exits.callback(stop_server, server)
            until(lambda: server.poll() is not None or answers(self.port), "the server of the page")
            assert server.poll() is None, f"{words} has ended"
        elif self.example and program == "python":
            self.compare(shown, self.printed(*rest))
        elif program == "pytest" and (self.folder / "pyproject.toml").exists():
            self.compare(shown, self.printed("-m", *words))

    def compare(self, shown, printed):
        """Compare the output of a command with the page, and note which ids stand for those on the page."""
        for old, new in zip(
            map(SHORT_ID.match, shown.splitlines()), map(SHORT_ID.match, printed.splitlines()), strict=False
        ):
            if old and new:
                self.ids[old[0]] = new[0]
        for old, new in self.ids.items():
            shown = shown.replace(old, new)
        assert not shown or doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS), printed

    def printed(self, *words):
        """Run Python in the folder of the page, and return what it prints on a terminal."""
        terminal, end = pty.openpty()
        with open(terminal, encoding="utf-8", errors="replace", closefd=False) as screen:
            program = subprocess.Popen(
                [sys.executable, *words],
                # Options of the run of these tests are not those of the page.
                cwd=self.folder, env=environment(COLUMNS="100", TERM="xterm", PYTEST_ADDOPTS=""), stdout=end,
            )  # fmt: skip
            os.close(end)
            lines = []
            with contextlib.suppress(OSError):  # so a terminal ends
                lines.extend(screen)
        os.close(terminal)
        assert program.wait(STOP_TIMEOUT_SECONDS) == 0, "".join(lines)
        return re.sub(r"\x1b\[[\d;]*m", "", "".join(lines))

    def process(self, *words):
        """Start Python in the folder of the page."""
        return subprocess.Popen([sys.executable, *words], cwd=self.folder, env=environment(PYTEST_ADDOPTS=""))

    def close(self):
        close_all(self.names)
        self.exits.close()


def close_all(names):
    """Close the queues and the connections among the names of a page, also of a page that fails."""
    for value in list(names.values()):
        if isinstance(value, TaskQueue | psycopg.Connection):
            value.close()


def stop_consumer(consumer):
    consumer.send_signal(signal.SIGTERM)
    assert consumer.wait(STOP_TIMEOUT_SECONDS) == 0


def stop_server(server):
    server.terminate()
    server.wait(STOP_TIMEOUT_SECONDS)


def free_port():
    """Return the number of a port of this host that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(port):
    """Return whether a server accepts connections at a port of this host."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False
