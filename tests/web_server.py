"""A small web server on 127.0.0.1 with the faults of real ones."""

import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

from .hub_server import serving


@contextmanager
def web_server(
    files,
    *,
    cuts=0,
    cut_at=0,
    busy=0,
    ranges=True,
    retry_after=None,
    redirect=False,
    length=None,
    chunked=False,
):
    """Serves files by name until the block ends.

    Args:
        files: Bytes by name.
        cuts: How many answers break off.
        cut_at: Bytes of the body after which they do.
        busy: How many requests are answered with 503 before any other.
        ranges: Whether it can resume.
        retry_after: What busy answers ask for.
        redirect: Whether it sends everyone round in circles.
        length: What it says instead of the right Content-Length.
        chunked: Whether it sends pieces without a length.
    """
    seen = SimpleNamespace(ranges=[], cuts=cuts, busy=busy)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if chunked else "HTTP/1.0"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(200, b"")

        def do_GET(self):
            if redirect:
                self.send_response(302)
                self.send_header("Location", self.path)
                return self.end_headers()
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
            if status == 503 and retry_after:
                self.send_header("Retry-After", retry_after)
            if chunked and status < 300:
                self.send_header("Transfer-Encoding", "chunked")
                body = (
                    b"".join(
                        b"%x\r\n%s\r\n" % (len(one), one) for one in (body[:1000], body[1000:])
                    )
                    + b"0\r\n\r\n"
                )
            else:
                self.send_header("Content-Length", str(len(body)) if length is None else length)
            self.end_headers()
            if seen.cuts and status < 300 and body:
                seen.cuts -= 1
                body = body[:cut_at]
            self.wfile.write(body)

    with serving(Handler) as seen.url:
        yield seen
