"""Logs a line per second until SIGTERM, then says goodbye: both must reach the log."""
import itertools
import os
import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
dyno = os.environ.get("DYNO", "worker")

for job in itertools.count(1):
    print(f"{dyno} job {job} done", flush=True)
    if stop.wait(1):
        break
print(f"{dyno} finished its last job", flush=True)
