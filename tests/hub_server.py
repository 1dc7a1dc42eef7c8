"""A small server on 127.0.0.1 that serves repositories as the Hub does."""

import hashlib
import json
import re
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

COMMIT, OLDER = "c0ffee" + "0" * 34, "0ddba11" + "0" * 33


@contextmanager
def hub_server(repositories, *, cut=None, corrupt=False, busy=0, retry_after=None):
    """Serves repositories until the block ends.

    Args:
        repositories: By id and revision ("main", a tag, or a commit) the bytes of each file by its
            name.
        cut: Bytes of a large file after which the connection is closed, each time.
        corrupt: Whether a byte of large files is another than their hash says.
        busy: The HTTP status of every answer, if not 0.
        retry_after: What busy answers ask for.
    """
    seen = SimpleNamespace(requests=[], ranges=[], cut=cut, corrupt=corrupt, busy=busy)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            seen.requests.append((self.command, self.path))
            if seen.busy:
                return self.send(
                    seen.busy, b"", {"Retry-After": retry_after} if retry_after else {}
                )
            if match := re.fullmatch(
                r"/api/models/([^/]+/[^/]+)(?:/revision/([^/?]+))?(?:\?.*)?", self.path
            ):
                return self.api(match[1], match[2] or "main")
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(?:\?.*)?", self.path):
                return self.resolve(*match.groups())
            if match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", self.path):
                return self.large(repositories[match[1]][match[2]][match[3]], body)
            return self.refuse(404, "EntryNotFound", "no such page")

        def files(self, repository, revision):
            if repository not in repositories:
                return self.refuse(401, "RepoNotFound", "Invalid username or password.")
            named = repositories[repository]
            if revision not in named and revision not in (COMMIT, OLDER):
                return self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return named[
                revision if revision in named else "main" if revision == COMMIT else "older"
            ]

        def commit(self, revision):
            return OLDER if revision in ("older", OLDER) else COMMIT

        def api(self, repository, revision):
            if (files := self.files(repository, revision)) is not None:
                siblings = [{"rfilename": name} for name in files]
                answer = {
                    "id": repository,
                    "modelId": repository,
                    "sha": self.commit(revision),
                    "siblings": siblings,
                    "tags": [],
                }
                self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def resolve(self, repository, revision, name):
            if (files := self.files(repository, revision)) is None:
                return
            headers = {"X-Repo-Commit": self.commit(revision), "Accept-Ranges": "bytes"}
            if name not in files:
                self.refuse(404, "EntryNotFound", "Entry not found", headers)
            elif name.endswith(
                ".safetensors"
            ):  # large files lie elsewhere, under the SHA-256 of their content
                folder = "older" if self.commit(revision) == OLDER else "main"
                headers |= {
                    "X-Linked-Etag": f'"{hashlib.sha256(files[name]).hexdigest()}"',
                    "X-Linked-Size": str(len(files[name])),
                    "Location": f"{seen.cdn}/cdn/{repository}/{folder}/{name}",
                }
                self.send(302, b"", headers)
            else:
                blob = b"blob %d\0" % len(files[name]) + files[name]  # small files go by git's hash
                headers["ETag"] = f'"{hashlib.sha1(blob).hexdigest()}"'
                self.send(200, files[name], headers)

        def large(self, content, body):
            seen.ranges += [self.headers.get("Range")] if body else []
            start = (
                int(match[1])
                if (match := re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", "")))
                else 0
            )
            if seen.corrupt:
                content = content[:-1] + bytes([content[-1] ^ 1])
            status, headers = (
                (206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
                if start
                else (200, {})
            )
            sent = content[start:]
            if body and seen.cut is not None:
                self.send(status, sent, headers, stop=max(0, seen.cut - start))
                self.close_connection = True
            else:
                self.send(status, sent, headers)

        def refuse(self, status, code, message, headers=None):
            self.send(
                status, b"", {"X-Error-Code": code, "X-Error-Message": message} | (headers or {})
            )

        def send(self, status, content, headers, stop=None):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[:stop])

    with ExitStack() as stack:
        seen.url, seen.cdn = (
            stack.enter_context(serving(Handler)),
            stack.enter_context(serving(Handler)),
        )
        yield seen


@contextmanager
def serving(handler):
    """Serves on a free port until the block ends, and gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
