from lifecycle import TaskQueue

queue = TaskQueue("sqlite:///queue.db")


@queue.task(retries=3, retry_delay=10)
def send_mail(address, subject):
    return f"sent {subject!r} to {address}"
