"""Serve folders over HTTP as the Hugging Face Hub serves repositories.

Only what `huggingface_hub` needs to read models is here. As on the Hub, large files are served by
another host, to which the Hub redirects.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

LARGE = (".safetensors", ".bin", ".gguf", "tokenizer.json")
"""Files that the Hub keeps elsewhere."""


@dataclass
class Repository:
    """One repository.

    Attributes:
        revisions: folders, by branch or tag.
        token: of those who may read it, if it is private.
        gated: whether only its list of files is public.
        more_files: names that are also in its list of files.
    """

    revisions: dict[str, Path]
    token: str | None = None
    gated: bool = False
    more_files: tuple[str, ...] = ()

    def commit(self, revision: str) -> str:
        return hashlib.sha1(str(self.revisions[revision]).encode()).hexdigest()

    def find(self, revision: str) -> str | None:
        """Return the branch or tag of a revision, which may be a commit."""
        names = {self.commit(name): name for name in self.revisions}
        return revision if revision in self.revisions else names.get(revision)


@dataclass
class HubServer:
    """The Hub.

    Attributes:
        repositories: by id.
        served: bytes of the content of files that were served, by id and name.
        status: answered to every request, if set.
        has_ranges: whether parts of files are served.
        leaked: values of `Authorization` that the other host has got.
    """

    port: int = 0
    repositories: dict[str, Repository] = field(default_factory=dict)
    served: Counter[str] = field(default_factory=Counter)
    status: int | None = None
    has_ranges: bool = True
    leaked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def content_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/content"

    def add(self, name: str, folder: Path, revision: str = "main", **more: Any) -> None:
        repository = self.repositories.setdefault(name, Repository({}, **more))
        repository.revisions[revision] = folder


@contextmanager
def run_hub() -> Iterator[HubServer]:
    """Run a Hub without repositories."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            huggingface_hub.close_session()
            server.shutdown()
            thread.join()


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client ask a Hub, without a token and with a cache of its own.

    Other programs read these from HF_ENDPOINT, HF_HUB_CACHE and so on, when they are started.
    """
    constants = "huggingface_hub.constants"
    path = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", url + path)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        if self.hub.status is not None:
            self._send(self.hub.status)
        elif found := re.fullmatch(r"/content/(.+?)@([^/]+)/(.+)", path):
            self._content(*map(unquote, found.groups()))
        elif found := re.fullmatch(
            r"/api/models/(.+?)(?:/(revision|tree|refs)(?:/([^/]+))?)?", path
        ):
            self._api(unquote(found[1]), found[2], unquote(found[3] or "main"))
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._resolve(*map(unquote, found.groups()))
        else:
            self._send(404)

    def _api(self, name: str, what: str | None, revision: str) -> None:
        repository = self._find(name)
        if repository is None:
            return
        if what == "refs":
            branches = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": "0" * 40}
                for branch in repository.revisions
            ]
            self._send_json({"branches": branches, "tags": [], "converts": []})
            return
        branch = repository.find(revision)
        if branch is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return
        files = list(_files(repository, branch))
        if what == "tree":
            self._send_json([_as_entry(*file) for file in files])
            return
        siblings = [_as_sibling(*file) for file in files]
        siblings += [{"rfilename": name, "size": 9} for name in repository.more_files]
        sha = repository.commit(branch)
        self._send_json({"id": name, "modelId": name, "sha": sha, "siblings": siblings})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._find(name)
        if repository is None:
            return
        if repository.gated:
            self._send(403, {"X-Error-Code": "GatedRepo"})
            return
        branch = repository.find(revision)
        if branch is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return
        commit = {"X-Repo-Commit": repository.commit(branch)}
        path = repository.revisions[branch] / file
        if not path.is_file():
            self._send(404, {"X-Error-Code": "EntryNotFound", **commit})
        elif file.endswith(LARGE):
            linked = {
                "X-Linked-Size": str(path.stat().st_size),
                "X-Linked-Etag": f'"{_hash(path)}"',
            }
            place = f"{self.hub.content_url}/{name}@{repository.commit(branch)}/{file}"
            self._send(302, {**commit, **linked, "Location": place})
        else:
            self._send_file(name, path, file, {**commit, "ETag": f'"{_hash(path)}"'})

    def _content(self, name: str, commit: str, file: str) -> None:
        if token := self.headers.get("Authorization"):
            self.hub.leaked.append(token)
        repository = self.hub.repositories[name]
        folder = repository.revisions[repository.find(commit) or ""]
        self._send_file(name, folder / file, file, {})

    def _find(self, name: str) -> Repository | None:
        """Return a repository that may be read, or answer as the Hub does if there is none."""
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given == "expired":
            self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        repository = self.hub.repositories.get(name)
        if repository is None or repository.token not in (None, given):
            self._send(404 if given else 401, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _send_file(self, name: str, path: Path, file: str, headers: dict[str, str]) -> None:
        content, status = path.read_bytes(), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.hub.has_ranges:
            size, status = len(content), 206
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
            headers |= {"Content-Range": f"bytes {wanted[1]}-{wanted[2]}/{size}"}
        if self.command == "GET":
            self.hub.served[f"{name}/{file}"] += len(content)
        self._send(status, headers, content)

    def _send_json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(
        self, status: int, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> None:
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _files(repository: Repository, branch: str) -> Iterator[tuple[str, Path]]:
    folder = repository.revisions[branch]
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _as_sibling(name: str, path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": _hash(path)}
    if name.endswith(LARGE):
        sibling["lfs"] = {"sha256": _hash(path), "size": size, "pointerSize": 130}
    return sibling


def _as_entry(name: str, path: Path) -> dict[str, Any]:
    sibling = _as_sibling(name, path)
    entry: dict[str, Any] = {"type": "file", "path": name, "size": sibling["size"]}
    if "lfs" in sibling:
        entry["lfs"] = {**sibling["lfs"], "oid": sibling["lfs"]["sha256"]}
    return {**entry, "oid": sibling["blobId"]}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
