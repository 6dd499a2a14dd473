"""A small Flask app whose pages show how the platform runs it."""
import os
import time

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/")
def index():
    return f"Hello from {os.environ.get('DYNO', 'nowhere')}, {os.environ.get('GREETING', 'no greeting set')}.\n"


@app.get("/env/<name>")
def env(name):
    """The value a config var has here, or 404."""
    if name not in os.environ:
        return "not set\n", 404
    return os.environ[name] + "\n"


@app.get("/sleep/<float:secs>")
@app.get("/sleep/<int:secs>")
def sleep(secs):
    """Answers late; more than 30 seconds is past a router's patience."""
    time.sleep(secs)
    return f"slept {secs} s\n"


@app.get("/crash")
def crash():
    """Ends this worker process without an answer."""
    os._exit(1)


@app.get("/big")
def big():
    """Streams n kilobytes."""
    count = request.args.get("n", default=1024, type=int)
    block = b"x" * 1023 + b"\n"
    return Response((block for _ in range(count)), mimetype="text/plain")
