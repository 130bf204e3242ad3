"""A small HTTP API with several routes, as any image may hold one: notes, kept in memory.

curl 127.0.0.1:8080/invoke/api/
curl -d '{"text":"buy milk"}' 127.0.0.1:8080/invoke/api/notes
"""

import itertools
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

LARGEST_BODY = 64 * 1024


class Notes:
    """Notes by number; every instance has its own."""

    def __init__(self):
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._notes = {}

    def add(self, text):
        with self._lock:
            note = {"id": next(self._numbers), "text": text}
            self._notes[note["id"]] = note
        return note

    def get(self, number):
        return self._notes.get(number)

    def remove(self, number):
        return self._notes.pop(number, None)

    def all(self):
        with self._lock:
            return list(self._notes.values())


class Handler(BaseHTTPRequestHandler):
    """One connection; it is kept open between requests."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in one write, at once: written apart, each answer would wait for a delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True

    def parse_request(self):
        """A body that is not read would be taken for the next request: after one, the connection ends."""
        is_request = super().parse_request()
        if is_request and self.command != "POST":
            has_body = self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers
            self.close_connection = self.close_connection or has_body
        return is_request

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path in ("", "/"):
            self._answer(200, {"routes": ["/", "/healthz", "/whoami", "/echo", "/notes", "/notes/{id}"]})
        elif url.path == "/healthz":
            self._answer(200, {"status": "ok"})
        elif url.path == "/whoami":
            self._answer(200, {"hostname": socket.gethostname(), "pid": os.getpid()})
        elif url.path == "/echo":
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(200, {"path": url.path, "query": dict(parse_qsl(url.query)), "headers": headers})
        elif url.path == "/notes":
            self._answer(200, self.server.notes.all())
        else:
            self._note(self.server.notes.get)

    def do_HEAD(self):
        self.do_GET()

    def do_DELETE(self):
        self._note(self.server.notes.remove)

    def do_POST(self):
        body = self._body()
        if body is None:
            return
        if urlsplit(self.path).path != "/notes":
            self._answer(404, {"error": "post to /notes"})
            return
        try:
            text = json.loads(body)["text"]
        except (ValueError, KeyError, TypeError):
            self._answer(400, {"error": 'send {"text": "..."}'})
            return
        self._answer(201, self.server.notes.add(text))

    def _note(self, find):
        folder, _, number = urlsplit(self.path).path.rpartition("/")
        note = find(int(number)) if folder == "/notes" and number.isascii() and number.isdigit() else None
        self._answer(200 if note else 404, note or {"error": "there is nothing here"})

    def _body(self):
        """The request's body; None if it was refused, and then the connection ends, for it is not read."""
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > LARGEST_BODY:
            self.close_connection = True
            self._answer(413 if length else 411, {"error": f"send a content-length, at most {LARGEST_BODY}"})
            return None
        return self.rfile.read(int(length))

    def _answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *arguments):
        """Requests are counted by the gateway; only what goes wrong is worth a line."""


class Server(ThreadingHTTPServer):
    """Serves until it is stopped; a thread for each connection."""

    daemon_threads = True

    def __init__(self, address):
        super().__init__(address, Handler)
        self.notes = Notes()


if __name__ == "__main__":
    Server(("", int(os.environ.get("PORT", "8000")))).serve_forever()
