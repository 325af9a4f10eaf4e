"""Program whose threads use a queue while its consumer forks workers again and again: ``python forks.py URL``."""

import sys
import threading

from lifecycle import Consumer, TaskQueue

THREADS, CALLS = 4, 10

queue = TaskQueue(sys.argv[1], lease=5.0)
signals = []
queue.signal()(lambda signal, task, exc=None: signals.append(signal))


@queue.task()
def locked(number):
    with queue.lock_task(f"lock-{number}"):
        return number


def call(first, values):
    for number in range(first, first + CALLS):
        values.append(locked(number).get(timeout=60))
        assert not queue.is_locked(f"lock-{number}")


def main():
    consumer = Consumer(queue, 2, "process", start_method="fork", max_tasks=4)
    consumer.start()
    parts = [[] for _ in range(THREADS)]
    threads = [threading.Thread(target=call, args=(CALLS * n, part)) for n, part in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    consumer.stop()
    values = sorted(value for part in parts for value in part)
    workers = {task.worker for task in queue.tasks(limit=THREADS * CALLS)}
    assert values == [*range(THREADS * CALLS)]
    assert len(workers) >= THREADS * CALLS // 4
    assert {*signals} == {"enqueued"}
    queue.close()


if __name__ == "__main__":
    main()
