"""Ticks every two seconds until SIGTERM."""
import os
import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
dyno = os.environ.get("DYNO", "clock")

tick = 0
while not stop.wait(2):
    tick += 1
    print(f"{dyno} tick {tick}", flush=True)
