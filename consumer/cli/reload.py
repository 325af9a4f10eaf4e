"""``lifecycle run --reload``: a new start of the consumer when its code changes."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from lifecycle.clock import pause

__all__ = ["CodeWatcher", "restart_on_changes"]

log = logging.getLogger("lifecycle.consumer")

LOOK_INTERVAL_SECONDS: Final = 0.5
"""Time between two looks at the files."""


class CodeWatcher:
    """Finds changes of the imported modules in a folder, without those of installed packages."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the folder that a command is started in."""
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}
        self.changed()

    def changed(self) -> list[Path]:
        """Return the files that have changed since the last call; new and lost files are no change."""
        changed = []
        for path in self._files():
            try:
                status = path.stat()
            except OSError:  # an editor may be replacing the file
                continue
            version = status.st_mtime_ns, status.st_size
            if self._seen.setdefault(path, version) != version:
                changed.append(path)
            self._seen[path] = version
        return changed

    def _files(self) -> list[Path]:
        files = [Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
        return [
            path
            for path in files
            if path.is_relative_to(self._folder) and not {"site-packages", "dist-packages"} & {*path.parts}
        ]


def restart_on_changes() -> None:
    """Watch the code in the current folder in a thread; a change sends ``SIGHUP`` to this process."""
    watcher = CodeWatcher(Path.cwd())

    def watch() -> None:
        while True:
            pause(LOOK_INTERVAL_SECONDS)
            if changed := watcher.changed():
                log.info("code has changed: files=%s", ", ".join(map(str, changed)))
                os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=watch, name="lifecycle-reload", daemon=True).start()
