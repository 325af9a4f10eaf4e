"""Opens, for each line that comes in (a moment and a URL), that store at that moment, and enqueues a task there."""

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
    while time.time() < moment:  # busy: no two of them shall be far apart
        pass
    sys.stdout.write(task().id + "\n")
    sys.stdout.flush()
    queue.close()
