"""A hub on this machine: it answers what huggingface_hub asks, from folders, and remembers what was asked for."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple


class FakeHub(NamedTuple):
    """Where it listens, and the files that were downloaded from it."""

    endpoint: str
    downloaded: list[str]


@contextmanager
def serving(repositories: dict[str, dict[str, Path]]) -> Iterator[FakeHub]:
    """Serves repositories: by name, by commit, the folder of its files."""
    downloaded: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            """Answers with the headers alone."""
            self.do_GET()

        def do_GET(self) -> None:
            """Answers the listing of a commit, or gives a file of it."""
            path, name = self.path.partition("?")[0], ""
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
                repository, kind, commit = found.groups()
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                (repository, commit, name), kind = found.groups(), "file"
            else:
                return self.answer(404, b"")
            if repository not in repositories:
                return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            if commit not in repositories[repository]:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            folder = repositories[repository][commit]
            files = {each.name: each.read_bytes() for each in sorted(folder.iterdir())}
            ids = {each: hashlib.sha1(content).hexdigest() for each, content in files.items()}
            if kind == "file":
                if name not in files:
                    return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                if self.command == "GET":
                    downloaded.append(name)
                return self.answer(200, files[name], {"ETag": f'"{ids[name]}"', "X-Repo-Commit": commit})
            if kind == "tree":
                listing = [{"type": "file", "path": n, "size": len(c), "oid": ids[n]} for n, c in files.items()]
            else:
                siblings = [{"rfilename": n, "size": len(c), "blobId": ids[n]} for n, c in files.items()]
                listing = {"id": repository, "sha": commit, "siblings": siblings}
            return self.answer(200, json.dumps(listing).encode())

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield FakeHub(f"http://127.0.0.1:{server.server_port}", downloaded)
    finally:
        server.shutdown()
        server.server_close()
