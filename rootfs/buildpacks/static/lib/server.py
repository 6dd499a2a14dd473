"""Serves a folder on 0.0.0.0:$PORT until SIGTERM. Hidden files and folder listings are 404."""
import http.server
import os
import signal
import sys
import threading
import urllib.parse

# What describes the app is not part of the site.
UNSERVED = {"Procfile", "static.json", "app.json"}


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "static"

    def send_head(self):
        parts = urllib.parse.unquote(self.path.split("?", 1)[0]).split("/")
        if parts[-1] in UNSERVED or any(part.startswith(".") for part in parts):
            self.send_error(404)
            return None
        return super().send_head()

    def list_directory(self, path):
        self.send_error(404)

    # Log lines belong on stdout; the platform adds the time.
    def log_message(self, format, *args):
        print(format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    # The kernel's queue of connections that wait; the default of 5 drops some under load.
    request_queue_size = 128


def main():
    root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
    port = int(os.environ["PORT"])
    server = Server(("0.0.0.0", port), lambda *args: Handler(*args, directory=root))
    # shutdown() waits for the serving loop, which runs in this very thread.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"serving {root} on port {port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    print("stopped", flush=True)


main()
