from fastapi import FastAPI, HTTPException
from lifecycle import ResultTimeout, TaskException, UnknownTask

from tasks import make_report, queue

app = FastAPI()


@app.post("/reports", status_code=202)
def order(subject: str) -> dict:
    result = make_report(subject)
    return {"id": result.id, "state": result.state}


@app.get("/reports/{id}")
def show(id: str, wait: float = 0) -> dict:
    result = queue.handle(id)
    try:
        value = result.get(timeout=wait) if wait else result.get()
    except UnknownTask:
        raise HTTPException(404, "no such report") from None
    except ResultTimeout:
        value = None
    except TaskException as failure:
        return {"id": id, "state": failure.state, "error": str(failure)}
    return {"id": id, "state": result.state, "report": value}
