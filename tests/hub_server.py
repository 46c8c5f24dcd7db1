"""A hub on this machine: enough of the real one's HTTP interface for its real clients to list and fetch repositories.

Repositories are folders: ``<root>/models/<owner>/<name>/...`` and ``<root>/datasets/<owner>/<name>/...``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """A running hub.

    Attributes:
        requests: "METHOD /path" of every request so far.
        fail_with: HTTP status that every request gets from now on; 0 for none.
    """

    root: Path
    url: str
    requests: list[str] = field(default_factory=list)
    fail_with: int = 0

    def environment(self, cache: Path) -> dict[str, str]:
        """What makes the hub's clients use this server and a cache of their own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}


@contextlib.contextmanager
def running_hub(root: Path) -> Iterator[HubServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = HubServer(root, f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *_args: object) -> None:
        pass

    def _answer(self) -> None:
        hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if hub.fail_with:
            self._send(hub.fail_with, b"{}")
        elif path == "/":
            self._send(200, b"a hub")
        elif path.startswith("/api/"):
            self._answer_api(hub.root, path.removeprefix("/api/").split("/"))
        else:
            self._answer_file(hub.root, path.strip("/").split("/"))

    def _answer_api(self, root: Path, parts: list[str]) -> None:
        kind, owner, name, *question = parts
        folder = root / kind / owner / name
        if kind not in ("models", "datasets") or not folder.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif not question or question[0] == "revision":
            files = [{"rfilename": name} for name in _files(folder)]
            info = {"_id": "1", "id": f"{owner}/{name}", "sha": COMMIT, "private": False, "siblings": files, "tags": []}
            self._send(200, json.dumps(info).encode())
        elif question[0] == "tree":
            below = "/".join(question[2:])
            self._send(200, json.dumps(_tree(folder, below)).encode())
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _answer_file(self, root: Path, parts: list[str]) -> None:
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        owner, name, verb, _revision, *rest = parts
        folder, file = root / kind / owner / name, root / kind / owner / name / "/".join(rest)
        if not folder.is_dir():
            self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif verb != "resolve" or not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = file.read_bytes()
            tag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _tree(folder: Path, below: str) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for path in sorted((folder / below).rglob("*")):
        name = str(path.relative_to(folder))
        kind = "directory" if path.is_dir() else "file"
        size = path.stat().st_size if path.is_file() else 0
        entries.append({"type": kind, "path": name, "size": size, "oid": hashlib.sha1(name.encode()).hexdigest()})
    return entries
