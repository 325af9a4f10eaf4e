from flask import Flask, jsonify, request
from lifecycle import ResultTimeout, TaskException, UnknownTask

from tasks import queue, send_mail

app = Flask(__name__)


@app.post("/mails")
def send():
    result = send_mail(request.form["address"], request.form["subject"])
    return jsonify(id=result.id), 202


@app.get("/mails/<id>")
def show(id):
    wait = request.args.get("wait", 0.0, type=float)
    try:
        value = queue.handle(id).get(timeout=wait)
    except UnknownTask:
        return jsonify(error="no such mail"), 404
    except ResultTimeout:
        value = None
    except TaskException as failure:
        return jsonify(state=failure.state, error=str(failure))
    return jsonify(state=queue.get(id).state, outcome=value)
