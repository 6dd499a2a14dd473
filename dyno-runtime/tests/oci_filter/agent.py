# Answers for filters (seccomp_unotify(2)): listens where it is told, prints one line of what each container process state says, lets every
# call go on but getpgid, which gets ENOSPC.
import array, fcntl, json, os, socket, struct, sys, threading
RECEIVE, SEND = 0xc0502100, 0xc0182101
CONTINUE, GETPGID = 1, {"x86_64": 121, "aarch64": 155}[os.uname().machine]
def answer(listener):
    while True:
        call = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, call)
        except OSError:
            return
        (id, nr) = struct.unpack_from("<Q", call)[0], struct.unpack_from("<i", call, 16)[0]
        answer = struct.pack("<QqiI", id, 0, -28, 0) if nr == GETPGID else struct.pack("<QqiI", id, 0, 0, CONTINUE)
        try:
            fcntl.ioctl(listener, SEND, answer)
        except OSError:
            pass
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
while True:
    peer, _ = server.accept()
    text, fds, _, _ = socket.recv_fds(peer, 1 << 16, 8)
    while more := peer.recv(1 << 16):
        text += more
    state = json.loads(text)
    print(json.dumps([state["fds"], len(fds), state["pid"], state.get("metadata"), state["state"]["id"], state["state"]["status"]]), flush=True)
    threading.Thread(target=answer, args=(fds[0],), daemon=True).start()
