"""A receiver of webhooks, as an application with Pusher's SDK for Python has it.

It prints each request that the SDK accepts.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pusher

PUSHER = pusher.Pusher(app_id=os.environ["APP_ID"], key=os.environ["APP_KEY"], secret=os.environ["APP_SECRET"])


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        webhook = PUSHER.validate_webhook(
            key=self.headers["X-Pusher-Key"], signature=self.headers["X-Pusher-Signature"], body=body
        )
        if webhook is not None:
            print(json.dumps(webhook), flush=True)
        self.send_response(401 if webhook is None else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # In the words of PHP's server, and not to where the requests are printed.
    os.write(2, f"(http://127.0.0.1:{server.server_port}) started\n".encode())
    server.serve_forever()
