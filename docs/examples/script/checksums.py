"""Print the checksums of files; four at a time, in worker processes."""

import sys

from lifecycle import Consumer, TaskException

from tasks import checksum, queue


def main():
    consumer = Consumer(queue, workers=4, worker_type="process")
    consumer.start()
    try:
        for path, result in [(path, checksum(path)) for path in sys.argv[1:]]:
            try:
                print(result.get(blocking=True)[:16], path)
            except TaskException as failure:
                print(failure.error_type, path)
    finally:
        consumer.stop()


if __name__ == "__main__":
    main()
