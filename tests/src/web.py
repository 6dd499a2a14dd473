"""A web process that does as it is told, on $PORT."""
import http.server
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, verb, *rest = self.path.split("/")
        if verb == "exit":
            os._exit(int(rest[0]))
        if verb == "say":
            print(rest[0], flush=True)
        if verb == "flood":
            for n in range(int(rest[0])):
                sys.stdout.write(f"flood {n}\n")
            sys.stdout.flush()
        body = (os.environ["DYNO"] + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


port = int(os.environ.get("PORT", "5000"))
http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
