"""A stand-in for the server of the Hugging Face Hub, which the real huggingface_hub talks to: models and commits.

It knows what creating a repository, committing files (small ones in the commit, large ones by git-lfs before it) and
fetching them take.
"""

import base64
import fnmatch
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS = {"hf_write": ("me", True), "hf_read": ("me", False)}
LARGE = "*.safetensors"


class Hub:
    def __init__(self):
        self.repositories = {}  # by name the commits, each {path: bytes}
        self.private = set()  # the names of those that only their owner sees
        self.failing = {}  # by a part of the path the status that requests are answered with
        self.large, self.closed = {}, False
        handler = type("Handler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self.closed = True  # of connections that are kept open, too
        self._server.shutdown()
        self._server.server_close()

    def files(self, name):
        return self.repositories[name][-1]


def commit_id(commits, number):
    return hashlib.sha1(f"{number} {sorted(commits[number])}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, value, status=200, headers=(), body=None):
        data = json.dumps(value).encode() if body is None else body
        self.send_response(status)
        for key, text in {"Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, code=""):
        repeated = f"refused: {self.headers.get('Authorization')} of {self.hub.address}/x?key=signature"
        said = {"error": repeated, "errors": [{"message": '"license" must be one of apache-2.0, mit'}]}
        self.reply(said, status, {"X-Error-Code": code} if code else {})

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.closed:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user, self.may_write = TOKENS.get(token, ("", False))
        path, _, _ = self.path.partition("?")
        for part, status in self.hub.failing.items():
            if part in path:
                self.refuse(status)
                return
        for pattern, how in ROUTES:
            if match := re.fullmatch(pattern, path):
                getattr(self, how)(body, *match.groups())
                return
        self.refuse(404)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def whoami(self, body):
        if not self.user:
            self.refuse(401)
        else:
            self.reply({"name": self.user, "type": "user", "orgs": [{"name": "lab"}], "auth": {}})

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked.get('organization') or self.user}/{asked['name']}"
        if not self.may_write or name.split("/")[0] not in (self.user, "lab"):
            self.refuse(403)
        elif name in self.hub.repositories:
            self.reply({"url": f"{self.hub.address}/{name}"}, 409)
        else:
            self.hub.repositories[name] = [{".gitattributes": b"*.safetensors filter=lfs"}]
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(name)
            self.reply({"url": f"{self.hub.address}/{name}"})

    def found(self, name, revision="main"):
        """The number of a commit, and its files; None where there is none, which is answered."""
        commits = self.hub.repositories.get(name)
        if commits is None:
            self.refuse(404 if self.user else 401, "RepoNotFound")
            return None
        ids = {commit_id(commits, number): number for number in range(len(commits))} | {"main": len(commits) - 1}
        if revision not in ids:
            self.refuse(404, "RevisionNotFound")
            return None
        return ids[revision], commits[ids[revision]]

    def info(self, body, name, revision="main"):
        if (found := self.found(name, revision)) is not None:
            number, files = found
            sha = commit_id(self.hub.repositories[name], number)
            siblings = [{"rfilename": path} for path in files]
            self.reply({"_id": "1", "id": name, "modelId": name, "sha": sha, "tags": [],
                        "private": name in self.hub.private,
                        "downloads": 0, "likes": 0, "siblings": siblings})  # fmt: skip

    def tree(self, body, name, revision):
        if (found := self.found(name, revision)) is not None:
            files = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in found[1].items()
            ]
            self.reply(files)

    def valid_yaml(self, body):
        self.reply({"errors": [], "warnings": []})

    def preupload(self, body, name, revision):
        paths = [file["path"] for file in json.loads(body)["files"]]
        modes = ["lfs" if fnmatch.fnmatch(path, LARGE) else "regular" for path in paths]
        self.reply({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
                              for path, mode in zip(paths, modes, strict=True)]})  # fmt: skip

    def batch(self, body, name):
        objects = [
            {**{key: each[key] for key in ("oid", "size")},
             "actions": {"upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]  # fmt: skip
        self.reply({"transfer": "basic", "objects": objects})

    def put(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.reply({})

    def commit(self, body, name, revision):
        files = dict(self.hub.files(name))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commits = self.hub.repositories[name]
        commits.append(files)
        sha = commit_id(commits, len(commits) - 1)
        self.reply({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}"})

    def resolve(self, body, name, revision, path):
        if (found := self.found(name, revision)) is None:
            return
        number, files = found
        if path not in files:
            self.refuse(404, "EntryNotFound")
            return
        sha = commit_id(self.hub.repositories[name], number)
        headers = {"ETag": f'"{hashlib.sha1(files[path]).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "none"}
        self.reply(None, headers=headers, body=files[path])


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (r"/api/whoami-v2", "whoami"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "valid_yaml"),
    (rf"/api/models/{NAME}", "info"),
    (rf"/api/models/{NAME}/revision/([\w.-]+)", "info"),
    (rf"/api/models/{NAME}/tree/([\w.-]+)", "tree"),
    (rf"/api/models/{NAME}/preupload/([\w.-]+)", "preupload"),
    (rf"/api/models/{NAME}/commit/([\w.-]+)", "commit"),
    (rf"/{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/(\w+)", "put"),
    (rf"/{NAME}/resolve/([\w.-]+)/(.+)", "resolve"),
)
