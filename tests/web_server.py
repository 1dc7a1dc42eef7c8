"""A small web server on 127.0.0.1 with the faults of real ones."""

import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

from .hub_server import serving


@contextmanager
def web_server(files, *, cuts=0, cut_at=0, busy=0, ranges=True):
    """Serves files by name until the block ends.

    Args:
        files: Bytes by name.
        cuts: How many answers break off.
        cut_at: Bytes of the body after which they do.
        busy: How many requests are answered with 503 before any other.
        ranges: Whether it can resume.
    """
    seen = SimpleNamespace(ranges=[], cuts=cuts, busy=busy)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(200, b"")

        def do_GET(self):
            asked = self.headers.get("Range")
            seen.ranges.append(asked)
            name = self.path.partition("?")[0].rpartition("/")[2]
            if seen.busy:
                seen.busy -= 1
                return self.answer(503, b"")
            if name not in files:
                return self.answer(404, b"")
            content = files[name]
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and ranges else 0
            if start >= len(content):
                return self.answer(416, b"")
            return self.answer(206 if start else 200, content[start:])

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if seen.cuts and status < 300 and body:
                seen.cuts -= 1
                body = body[:cut_at]
            self.wfile.write(body)

    with serving(Handler) as seen.url:
        yield seen
