"""A Google of the tests' own: answers what it is told to, and remembers what it was asked."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Google(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked = []
        self.left = 0
        self.guard = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A gateway that hangs up is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        with self.server.guard:
            self.server.asked.append((self.path, body))
        answer = self.server.answer(self.path, body)
        if answer is None:
            # Says nothing until the other side goes.
            self.connection.settimeout(20)
            try:
                gone = self.connection.recv(1) == b""
            except OSError as error:
                gone = not isinstance(error, TimeoutError)
            with self.server.guard:
                self.server.left += gone
            self.close_connection = True
            return
        # A status and a value, or with the type of its bytes between them.
        status, value, kind = answer[0], answer[-1], answer[1] if len(answer) == 3 else "application/json"
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@contextmanager
def serving(answer):
    google = Google(answer)
    thread = threading.Thread(target=google.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield google
    finally:
        google.shutdown()
        google.server_close()


def until(true, seconds=10):
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
