"""A hub on loopback that speaks the few endpoints that models need, and keeps commits in memory."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote

TOKEN = "hf_of_the_tests"


class SmallHub:
    """Repositories with commits, newest last; the requests that came.

    Args:
        private: Repositories that are shown to nobody without the token.
    """

    def __init__(self, private: tuple[str, ...] = ()) -> None:
        self.private = private
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit(self, repo: str, **files: bytes) -> str:
        """Add files to a repository; names are written with ``__`` for a dot."""
        return self.add(repo, {name.replace("__", "."): of for name, of in files.items()})

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """The commit, 40 hexadecimal digits."""
        commits = self.repos.setdefault(repo, {})
        before = list(commits.values())[-1] if commits else {}
        name = hashlib.sha1(f"{repo}{len(commits)}".encode()).hexdigest()
        commits[name] = {**before, **files}
        return name

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # ---- what it answers

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repos.get(repo, {})
        if revision == "main" and commits:
            return list(commits.items())[-1]
        return (revision, commits[revision]) if revision in commits else None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict, bytes]:
        if path == "/api/validate-yaml":
            return 200, {}, b'{"errors": [], "warnings": []}'
        if path == "/api/repos/create":
            return self._created(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.*", path):
            files = json.loads(body)["files"]
            how = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            told = [{"path": file["path"], **how} for file in files]
            return 200, {}, json.dumps({"files": told}).encode()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.*", path):
            return self._committed(match[1], body)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?", path):
            return self._listed(match[1], match[2], match[3])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
            return self._file(*match.groups())
        return 404, {}, b"{}"

    def _created(self, wanted: dict) -> tuple[int, dict, bytes]:
        repo = f"{wanted['organization']}/{wanted['name']}"
        status = 409 if repo in self.repos else 200
        self.repos.setdefault(repo, {})
        return status, {}, json.dumps({"url": f"{self.url}/{repo}", "name": repo}).encode()

    def _committed(self, repo: str, body: bytes) -> tuple[int, dict, bytes]:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        oid = self.add(repo, files)
        told = {"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid}
        return 200, {}, json.dumps(told).encode()

    def _listed(self, repo: str, what: str, revision: str) -> tuple[int, dict, bytes]:
        found = self.find(repo, revision)
        if found is None:
            code = "RevisionNotFound" if self.repos.get(repo) else "RepoNotFound"
            return 404, {"X-Error-Code": code}, b"{}"
        commit, files = found
        if what == "tree":
            told = [
                {"type": "file", "path": name, "size": len(of), "oid": _oid(of)}
                for name, of in files.items()
            ]
            return 200, {}, json.dumps(told).encode()
        siblings = [{"rfilename": name} for name in files]
        told = {"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        return 200, {}, json.dumps(told).encode()

    def _file(self, repo: str, revision: str, name: str) -> tuple[int, dict, bytes]:
        found = self.find(repo, revision)
        if found is None or name not in found[1]:
            return 404, {"X-Error-Code": "EntryNotFound" if found else "RevisionNotFound"}, b""
        content = found[1][name]
        return 200, {"X-Repo-Commit": found[0], "ETag": f'"{_oid(content)}"'}, content

    def _may_see(self, path: str, token: str | None) -> bool:
        hidden = any(f"/{repo}" in path for repo in self.private)
        return not hidden or token == f"Bearer {TOKEN}"

    def _handler(self):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *given) -> None:
                pass

            def any(self) -> None:
                body = self._body()
                path = unquote(self.path.split("?")[0])
                hub.asked.append(f"{self.command} {path}")
                if hub._may_see(path, self.headers.get("Authorization")):
                    status, headers, content = hub.answer(self.command, path, body)
                else:
                    status, headers, content = 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            do_GET = do_HEAD = do_POST = any

        return Handler


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
