"""A stand-in for the hub's HTTP API on 127.0.0.1: what huggingface_hub asks for to push a model and to download it."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"  # noqa: S105 - of nobody
REPO = r"/(?:api/models/)?([\w.-]+/[\w.-]+)"


class Hub:
    """Repositories by name; a revision is a branch or a commit, each with its files.

    Args:
        cut: whether downloads of weights break off half-way.
        private: names of repositories that only the token reads.
        gated: names of repositories whose files nobody has been given access to.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # by repository and commit
        self.branches: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.cut = False
        self.asked: list[str] = []
        self.url = ""

    def create(self, repo: str, *, private: bool = False) -> None:
        self.commits[repo], self.branches[repo] = {}, {}
        self.commit(repo, "main", {})
        if private:
            self.private.add(repo)

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Adds files to a branch, as a person who edits them on the page does."""
        before = self.branches[repo].get(branch, self.branches[repo].get("main", ""))
        whole = {**self.commits[repo].get(before, {}), **files}
        name = hashlib.sha1(f"{len(self.commits[repo])}{repo}".encode()).hexdigest()  # noqa: S324 - the name of a commit
        self.commits[repo][name] = whole
        self.branches[repo][branch] = name
        return name

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        return self.commits[repo].get(self.branches[repo].get(revision, revision))


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _route(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        path = self.path.partition("?")[0].replace("%2F", "/")
        self.hub.asked.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN) and "/lfs/" not in path:
            self._fail(401, None, "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self._create(json.loads(body), token)
        elif path.startswith("/lfs/"):
            self.hub.blobs[path.removeprefix("/lfs/")] = body
            self._answer(b"")
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.match(REPO + r"(?:\.git)?(?:/(.*))?$", path):
            repo, rest = found[1].removesuffix(".git"), found[2] or ""
            if repo not in self.hub.commits or (repo in self.hub.private and token != TOKEN):
                self._fail(404 if token else 401, "RepoNotFound", "Repository not found")
            else:
                self._repository(repo, rest, body, token)
        else:
            self._fail(404, None, "Not found")

    do_HEAD = do_GET = do_POST = do_PUT = _route  # noqa: N815 - as the base class calls them

    def _repository(self, repo: str, rest: str, body: bytes, token: str) -> None:
        kind, _, tail = rest.partition("/")
        if kind in ("resolve", "tree", "revision") or not rest:
            revision, _, name = tail.partition("/")
            files = self.hub.files(repo, revision or "main")
            if files is None:
                self._fail(404, "RevisionNotFound", "Revision not found")
            elif kind == "resolve":
                self._file(repo, revision, name, files)
            elif kind == "tree":
                self._json([_entry(name, data) for name, data in files.items()])
            else:
                sha = self.hub.branches[repo].get(revision or "main", revision)
                said = {"id": repo, "modelId": repo, "sha": sha, "private": False, "tags": []}
                self._json({**said, "siblings": [{"rfilename": name} for name in files]})
        elif token != TOKEN:
            self._fail(403, None, "You need write access")
        elif kind == "branch":
            self.hub.branches[repo].setdefault(tail, self.hub.branches[repo]["main"])
            self._json({})
        elif kind == "preupload":
            said = {"shouldIgnore": False, "oid": None}
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            files = [{"path": n, "uploadMode": mode, **said} for n, mode in zip(names, modes, strict=True)]
            self._json({"files": files})
        elif rest == "info/lfs/objects/batch":
            found = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": found}, "application/vnd.git-lfs+json")
        elif kind == "commit":
            self._commit(repo, tail, body)
        else:
            self._fail(404, None, f"No such address: {rest}")

    def _create(self, given: dict[str, Any], token: str) -> None:
        repo = "/".join(filter(None, (given.get("organization"), given["name"])))
        if token != TOKEN:
            self._fail(401, None, "Log in")
        elif repo in self.hub.commits:
            self._json({"url": f"{self.hub.url}/{repo}", "error": "You already created this model repo"}, status=409)
        elif repo.startswith("other/"):
            self._fail(403, None, "You don't have the rights to create a model under the namespace 'other'")
        else:
            self.hub.create(repo, private=bool(given.get("private") or given.get("visibility") == "private"))
            self._json({"url": f"{self.hub.url}/{repo}", "name": repo})

    def _commit(self, repo: str, branch: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        name = self.hub.commit(repo, branch, files)
        url = f"{self.hub.url}/{repo}/commit/{name}"
        self._json({"commitUrl": url, "commitOid": name, "success": True, "pullRequestUrl": None})

    def _file(self, repo: str, revision: str, name: str, files: dict[str, bytes]) -> None:
        commit = {"X-Repo-Commit": self.hub.branches[repo].get(revision, revision)}
        if repo in self.hub.gated:
            self._fail(403, "GatedRepo", "Access to model is restricted", commit)
            return
        if name not in files:
            self._fail(404, "EntryNotFound", "Entry not found", commit)
            return
        data = files[name]
        headers = {**commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        if self.hub.cut and self.command == "GET" and name.endswith(".safetensors"):
            self._answer(data[: len(data) // 2], headers, length=len(data))
            self.close_connection = True
        else:
            self._answer(data, headers)

    def _chunks(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return b""
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, value: Any, kind: str = "application/json", *, status: int = 200) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": kind}, status=status)

    def _fail(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._answer(json.dumps({"error": message}).encode(), named, status=status)

    def _answer(
        self, data: bytes, headers: dict[str, str] | None = None, *, status: int = 200, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha256(data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": oid[:40]}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
    return entry
