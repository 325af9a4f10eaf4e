import hashlib
from pathlib import Path

from lifecycle import TaskQueue

queue = TaskQueue("sqlite:///queue.db")


@queue.task()
def checksum(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
