"""An HTTP server for tests: says what it was sent, and answers in every awkward way that its path asks for."""

import hashlib
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        action = getattr(self, "do_" + url.path.strip("/").replace("-", "_"), self.do_echo)
        action()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_PURGE = answer  # noqa: N815

    def do_echo(self):
        body = self.read()
        told = {
            "method": self.command,
            "target": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "size": len(body),
            "digest": hashlib.sha256(body).hexdigest(),
            "pid": os.getpid(),
        }
        self.reply(200, json.dumps(told).encode(), {"content-type": "application/json"})

    def do_status(self):
        self.read()
        self.reply(int(self.query["code"]), b"", {"x-kept": "yes"})

    def do_headers(self):
        """Everything that an answer may not have."""
        self.read()
        forbidden = {
            "Connection": "keep-alive, X-Listed",
            "X-Listed": "hop",
            "Keep-Alive": "timeout=5",
            "Proxy-Authenticate": "Basic",
            "X-Hearth-Start": "free",
            "X-Hearth-Anything": "1",
            "X-Invocation-Id": "mine",
            "Set-Cookie": "a=b",
            "Clear-Site-Data": '"*"',
            "X-Kept": "yes",
            "Content-Type": self.query.get("type", "text/html"),
        }
        self.reply(200, b"<script>1</script>", forbidden)

    def do_big(self):
        """So many MiB, in chunks or with a length."""
        self.read()
        pieces = int(self.query["mib"]) * 16
        chunked = "length" not in self.query
        self.send_response(200)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(pieces * 65536))
        self.end_headers()
        piece = b"x" * 65536
        for _ in range(pieces):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def do_half(self):
        """An answer that ends too early."""
        self.read()
        self.send_response(200)
        framing = ("Content-Length", "1000") if "length" in self.query else ("Transfer-Encoding", "chunked")
        self.send_header(*framing)
        self.end_headers()
        self.wfile.write(b"only this" if "length" in self.query else b"9\r\nonly this\r\n")
        self.wfile.flush()
        time.sleep(0.1)
        self.close_connection = True

    def do_until_close(self):
        """An answer whose end is the end of the connection, as HTTP/1.0 has it."""
        self.read()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        self.close_connection = True

    def do_late(self):
        """Reads the body only after a while."""
        time.sleep(float(self.query["wait"]))
        self.do_echo()

    def do_deaf(self):
        """Answers without reading the body, and keeps the connection open for a moment."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"deaf")
        self.wfile.flush()
        time.sleep(0.3)
        self.close_connection = True

    def do_nonce(self):
        time.sleep(float(self.query.get("wait", "0")))
        self.read()
        self.reply(200, self.query["nonce"].encode(), {})

    def read(self):
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


Server(("", int(os.environ["PORT"])), Handler).serve_forever()
