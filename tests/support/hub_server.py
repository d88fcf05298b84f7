"""A server on loopback that speaks the few endpoints of the Hugging Face Hub that fetching files needs."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """`repos`: name -> {commit: {path: bytes}}, the last commit being `main`. `seen`: (method, path, user agent)."""

    repos: dict[str, dict[str, dict[str, bytes]]]
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    endpoint: str = ""
    broken: bool = False

    def requests(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _ in self.seen]

    def environment(self, home: Path) -> dict[str, str]:
        """The variables of a child process that uses this server and an own cache."""
        dropped = ("proxy", "hf_", "hugging", "telemetry", "do_not_track")
        kept = {key: value for key, value in os.environ.items() if not any(part in key.lower() for part in dropped)}
        return {**kept, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(home)}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.seen.append((self.command, path, self.headers.get("User-Agent", "")))
            status, headers, body = (500, {}, b"") if hub.broken else _answer(hub, path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(hub: Hub, path: str) -> tuple[int, dict[str, str], bytes]:
    parts = path.strip("/").split("/")
    info = parts[:2] == ["api", "models"]
    name = "/".join(parts[2:4] if info else parts[:2])
    if name not in hub.repos:
        return 401, {"X-Error-Code": "RepoNotFound"}, b""
    commits = hub.repos[name]
    revision = "/".join(parts[5:]) if info and len(parts) > 5 else "main" if info else parts[3]
    commit = list(commits)[-1] if revision == "main" else revision
    if commit not in commits:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    files = commits[commit]
    if info:
        siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
        document = {"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()
    file = "/".join(parts[4:])
    if file not in files:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    headers = {"ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"', "X-Repo-Commit": commit}
    return 200, headers, files[file]
