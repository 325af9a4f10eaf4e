"""Producer as a process: enqueues a number of tasks, and prints the id and the function of each."""

import random
import sys

import work

seed, count, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
for task in work.mix(random.Random(seed), count):
    work.queue.enqueue(task)
    print(task.id, task.name, flush=True)  # noqa: T201 -- the trial reads it
for _ in range(count // 10):
    result = work.quick.schedule((), delay=delay)
    work.note("scheduled", result.id)
    print(result.id, work.quick.name, flush=True)  # noqa: T201
work.queue.close()
