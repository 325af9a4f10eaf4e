from lifecycle import TaskQueue

queue = TaskQueue("sqlite:///queue.db")


@queue.task(retries=3, retry_delay=10)
def make_report(subject):
    return f"All about {subject}."
