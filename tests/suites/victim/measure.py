"""How late a small piece of work is, again and again for so many seconds: sleep 2 ms, a byte through a socket pair, a file, a hash."""
import hashlib
import json
import socket
import sys
import time

here, there = socket.socketpair()
block = b"x" * 16384
late = []
end = time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    began = time.perf_counter()
    time.sleep(0.002)
    here.send(b"x")
    there.recv(1)
    with open("/tmp/small", "wb") as file:
        file.write(block)
    hashlib.sha256(block).digest()
    late.append(time.perf_counter() - began - 0.002)
late.sort()
at = lambda share: round(late[min(len(late) - 1, int(len(late) * share))] * 1000, 3)
print(json.dumps({"rounds": len(late), "p50": at(0.5), "p99": at(0.99), "worst": at(1.0)}))
