"""A stand-in of the hub's HTTP interface for models: repositories in memory, with branches, commits and LFS files."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_ofThisTestOnly"


@dataclass
class Repository:
    """Branches to commits, commits to files."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None


class HubStandIn(ThreadingHTTPServer):
    """Answers the requests of `huggingface_hub` for creating, uploading and downloading models."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.uploaded_by_lfs: list[str] = []
        self.may_write = True


@contextmanager
def running() -> Iterator[HubStandIn]:
    hub = HubStandIn()
    thread = Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._read(with_body=True)

    def do_HEAD(self) -> None:
        self._read(with_body=False)

    def _read(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+?))?/?", path)
        found = found or re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", path)
        repository = self._readable(found[1]) if found else None
        if not found or repository is None:
            # The hub does not tell strangers whether a private repository exists.
            return self._answer(401 if self._token() is None else 404, {}, {"X-Error-Code": "RepoNotFound"})
        oid = repository.resolve(found[3] or "main")
        if oid is None:
            return self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[oid]
        if found[2] == "tree":
            return self._answer(200, [self._entry(name, content) for name, content in files.items()])
        if found[2] == "resolve":
            return self._file(files.get(found[4]), oid, with_body)
        siblings = [{"rfilename": name} for name in files]
        self._answer(200, {"id": found[1], "sha": oid, "private": repository.private, "siblings": siblings})

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _file(self, content: bytes | None, oid: str, with_body: bool) -> None:
        if content is None:
            return self._answer(404, {}, {"X-Error-Code": "EntryNotFound"})
        self.send_response(200)
        etag = hashlib.sha256(content).hexdigest()
        for name, value in {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def do_PUT(self) -> None:
        content = self._body()
        self.server.large_files[self.path.removeprefix("/lfs/")] = content
        self.server.uploaded_by_lfs.append(hashlib.sha256(content).hexdigest())
        self._answer(200, {})

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if self._token() is None:
            return self._answer(401, {"error": "Invalid username or password."})
        if not self.server.may_write:
            return self._answer(403, {"error": "Forbidden"}, {"X-Error-Message": "no write permission"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._large_files(json.loads(body))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path)
        assert found, path
        repository = self.server.repositories[found[1]]
        if found[2] == "branch":
            repository.branches.setdefault(found[3], repository.branches["main"])
            return self._answer(200, {})
        if found[2] == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": modes})
        self._commit(repository, found[1], found[3], [json.loads(line) for line in body.splitlines()])

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        answer = {"url": f"{self.server.endpoint}/{name}", "name": name}
        if name in self.server.repositories:
            return self._answer(409, answer)
        repository = self.server.repositories[name] = Repository(wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._answer(200, answer)

    def _large_files(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{each['oid']}"}}}
            for each in wanted["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        if branch not in repository.branches:
            return self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large_files[value["oid"]]
        oid = repository.commit(branch, files)
        url = f"{self.server.endpoint}/{name}/commit/{oid}"
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _readable(self, name: str) -> Repository | None:
        repository = self.server.repositories.get(name)
        return None if repository is None or (repository.private and self._token() is None) else repository

    def _token(self) -> str | None:
        return TOKEN if self.headers.get("Authorization") == f"Bearer {TOKEN}" else None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
