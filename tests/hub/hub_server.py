"""A stand-in for the Hugging Face Hub on 127.0.0.1, with as much of its HTTP interface as its clients use.

    with Hub(folder) as hub:
        hub.fail("model.safetensors", "cut", at=1000, times=1)
        ...  # a client whose endpoint is hub.url
        hub.requests                         # [(method, path, status), ...]

`folder` holds `models/<owner>/<name>/<commit>/...` and `datasets/...`; a commit has 40 hexadecimal digits. A file
`refs.json` beside the commits names branches: {"main": "<commit>"}.

These things are as on the hub: the JSON of `/api/.../revision`, `/tree` (in pages that `Link` connects) and
`/paths-info`; `resolve` with `X-Repo-Commit`, which redirects to another host with `X-Linked-Etag` and
`X-Linked-Size` for files in LFS, and to `/api/resolve-cache/...` for others; ranges; the codes of errors
(`X-Error-Code`). Xet is not there.
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_COMMIT = re.compile("[0-9a-f]{40}")
_LFS = (".safetensors", ".bin", ".parquet", ".model", ".spm", ".gz", ".h5", ".onnx", "/tokenizer.json")
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CACHED = re.compile(r"/api/resolve-cache/(models|datasets)/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path holds `match`."""

    match: str
    kind: str
    """One of status, gated, cut, stall, slow, corrupt and drop."""
    method: str = ""
    """The requests' method; empty means any."""
    times: int = 10**9
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    at: int = 0
    """After how many bytes a body is cut, stalls, or is corrupt for 64 bytes."""
    seconds: float = 0.0
    """How long a body stalls; for a slow one, the pause after every 1,000 bytes."""


@dataclass(frozen=True)
class File:
    path: Path
    name: str
    size: int
    sha1: str
    """The hash that Git gives the file."""
    sha256: str

    @property
    def lfs(self) -> bool:
        return f"/{self.name}".endswith(_LFS)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.sha1


@lru_cache(maxsize=10_000)
def _file(path: Path, name: str, stamp: int) -> File:
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return File(path, name, len(data), blob, hashlib.sha256(data).hexdigest())


class Answer(Exception):
    """An answer to a request, be it an error or not."""

    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not isinstance(body, bytes):
            self.headers["Content-Type"] = "application/json; charset=utf-8"


def _missing(status: int, code: str, message: str, **more: str) -> Answer:
    return Answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message, **more)


class Hub:
    def __init__(self, folder: Path, *, port: int = 0, page: int = 1000) -> None:
        self.folder, self.page = Path(folder), page
        self.requests: list[tuple[str, str, int]] = []
        self.agents: set[str] = set()
        self.faults: list[Fault] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, match: str, kind: str, **settings: Any) -> None:
        self.faults.append(Fault(match, kind, **settings))

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.match in path and fault.method in ("", method):
                fault.times -= 1
                return fault
        return None

    # --- what the folder holds -------------------------------------------------------------------

    def commit(self, kind: str, repo: str, revision: str) -> str:
        place = self.folder / kind / repo
        if not place.is_dir():  # the hub does not tell strangers what there is
            raise _missing(401, "RepoNotFound", "Invalid username or password.")
        refs = place / "refs.json"
        names = json.loads(refs.read_text()) if refs.is_file() else {}
        commit = names.get(revision, revision)
        if not (place / commit).is_dir():
            raise _missing(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def files(self, kind: str, repo: str, commit: str) -> dict[str, File]:
        root = self.folder / kind / repo / commit
        found = (path for path in sorted(root.rglob("*")) if path.is_file())
        names = ((path, path.relative_to(root).as_posix()) for path in found)
        return {name: _file(path, name, path.stat().st_mtime_ns) for path, name in names}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length) if length else b""
        address = urlsplit(self.path)
        self.asked, self.query = unquote(address.path), parse_qs(address.query)
        fault = self.hub.fault(self.command, self.path)
        try:
            self._refuse(fault)
            self._route(address.path)
        except Answer as answer:
            self.hub.requests.append((self.command, self.path, answer.status))
            self._send(answer, fault)
        except BrokenPipeError:
            self.close_connection = True

    def _refuse(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.kind == "drop":
            self.close_connection = True
            self.connection.close()
            raise BrokenPipeError
        if fault.kind == "gated":
            message = "Access to this repo is restricted and you are not in the authorized list."
            raise _missing(fault.status if fault.status in (401, 403) else 401, "GatedRepo", message)
        if fault.kind == "status":
            raise Answer(fault.status, {"error": "stand-in"}, **fault.headers)
        if fault.kind == "stall" and not fault.at:
            time.sleep(fault.seconds)

    def _route(self, raw: str) -> None:
        if match := _CACHED.fullmatch(raw):
            kind, repo, commit, name = match.groups()
            raise self._content(self._found(kind, unquote(repo), commit, unquote(name)), X_Repo_Commit=commit)
        if raw.startswith("/cdn/"):
            kind, repo, commit, name = (unquote(part) for part in raw.removeprefix("/cdn/").split("/", 3))
            raise self._content(self._found(kind, repo, commit, name))
        if match := _API.fullmatch(raw):
            self._api(*match.groups())
        if match := _RESOLVE.fullmatch(raw):
            self._resolve(match[1] or "models", unquote(match[2]), unquote(match[3]), unquote(match[4]))
        raise Answer(404, {"error": "Sorry, we can't find the page you are looking for."})

    # --- /api --------------------------------------------------------------------------------------

    def _api(self, kind: str, repo: str, what: str | None, revision: str | None, inside: str | None) -> None:
        repo = unquote(repo)
        commit = self.hub.commit(kind, repo, unquote(revision or "main"))
        files = self.hub.files(kind, repo, commit)
        if what == "tree":
            self._tree(files, unquote(inside or ""), commit)
        if what == "paths-info":
            asked = self._form()
            entries = _entries(files)
            raise Answer(200, [entries[path] for path in asked if path in entries], X_Repo_Commit=commit)
        blobs = "blobs" in self.query
        siblings = [
            {
                "rfilename": name,
                **({"size": file.size, "blobId": file.sha1, **_pointer(file)} if blobs else {}),
            }
            for name, file in files.items()
        ]
        told = {"_id": "0" * 24, "id": repo, "modelId": repo, "sha": commit, "private": False, "gated": False,
                "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
                "lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z"}  # fmt: skip
        raise Answer(200, told, X_Repo_Commit=commit)

    def _form(self) -> list[str]:
        if "json" in (self.headers.get("Content-Type") or ""):
            return list(json.loads(self.sent)["paths"])
        return parse_qs(self.sent.decode()).get("paths", [])

    def _tree(self, files: dict[str, File], inside: str, commit: str) -> None:
        entries = _entries(files)
        prefix = f"{inside}/" if inside else ""
        if inside and (inside not in entries or entries[inside]["type"] == "file"):
            raise _missing(
                404, "EntryNotFound", f'{inside} does not exist on "{commit}"', X_Repo_Commit=commit
            )
        deep = self.query.get("recursive", ["false"])[0].lower() == "true"
        held = [entry for path, entry in entries.items() if path.startswith(prefix)]
        held = [entry for entry in held if deep or "/" not in entry["path"].removeprefix(prefix)]
        start = int(self.query.get("cursor", ["0"])[0])
        end = start + self.hub.page
        more = {}
        if end < len(held):
            address = urlsplit(self.path).path
            query = f"recursive={str(deep).lower()}&cursor={end}"
            more["Link"] = f'<{self.hub.url}{address}?{query}>; rel="next"'
        raise Answer(200, held[start:end], X_Repo_Commit=commit, **more)

    # --- files ---------------------------------------------------------------------------------------

    def _found(self, kind: str, repo: str, commit: str, name: str) -> File:
        files = self.hub.files(kind, repo, commit)
        if name not in files:
            raise _missing(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        return files[name]

    def _resolve(self, kind: str, repo: str, revision: str, name: str) -> None:
        commit = self.hub.commit(kind, repo, revision)
        file = self._found(kind, repo, commit, name)
        place = f"{kind}/{quote(repo)}/{commit}/{quote(name)}"
        common = {"X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if file.lfs:  # they are elsewhere, at a signed address; another host name is another origin
            elsewhere = f"http://localhost:{self.hub.port}/cdn/{place.replace(repo, quote(repo, ''))}"
            raise Answer(
                302, b"", Location=f"{elsewhere}?sig=secret",
                X_Linked_Size=str(file.size), X_Linked_ETag=f'"{file.etag}"', **common,
            )  # fmt: skip
        raise Answer(
            307, b"", Location=f"/api/resolve-cache/{place}?etag=%22{file.etag}%22",
            X_Linked_Size=str(file.size), X_Linked_ETag=f'"{file.etag}"', **common,
        )  # fmt: skip

    def _content(self, file: File, **more: str) -> Answer:
        data = file.path.read_bytes()
        headers = {"ETag": f'"{file.etag}"', "Accept_Ranges": "bytes",
                   "Content_Disposition": f'inline; filename="{Path(file.name).name}";', **more}  # fmt: skip
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return Answer(200, data, **headers)
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data) > 0:
            return Answer(416, b"", Content_Range=f"bytes */{len(data)}")
        return Answer(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}", **headers)

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = answer.body
        kind = fault.kind if fault else ""
        if kind == "corrupt" and body:
            at = fault.at if fault else 0
            body = body[:at] + bytes(byte ^ 0xFF for byte in body[at : at + 64]) + body[at + 64 :]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "cut" and len(body) > (fault.at if fault else 0):
            self.wfile.write(body[: fault.at])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(1)
        elif kind == "stall" and fault and fault.at:
            self.wfile.write(body[: fault.at])
            self.wfile.flush()
            time.sleep(fault.seconds)
            self.wfile.write(body[fault.at :])
        elif kind == "slow" and fault:
            for start in range(0, len(body), 1000):
                self.wfile.write(body[start : start + 1000])
                self.wfile.flush()
                time.sleep(fault.seconds)
        else:
            self.wfile.write(body)


def _pointer(file: File) -> dict[str, Any]:
    if not file.lfs:
        return {}
    return {"lfs": {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 134}}


def _entries(files: dict[str, File]) -> dict[str, dict[str, Any]]:
    """Describe files, and the folders that they are in, by path."""
    entries: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
        entries[name] = {"type": "file", "oid": file.sha1, "size": file.size, "path": name, **_pointer(file)}
    return entries
