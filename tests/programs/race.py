"""For each input line (a moment and a URL) open the store at that moment, and enqueue a task there."""

import json
import sys
import time

from lifecycle import TaskQueue

sys.stdout.write("ready\n")
sys.stdout.flush()
for line in sys.stdin:
    moment, url = json.loads(line)
    queue = TaskQueue(url)
    task = queue.task(name="nothing")(lambda: None)
    while time.time() < moment:  # a busy loop: the processes must open the store at the same moment
        pass
    sys.stdout.write(task().id + "\n")
    sys.stdout.flush()
    queue.close()
