"""A stand-in for the server of Weights & Biases: as much of its interface as its own client needs to track a run."""

import gzip
import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Keeps the lines of a run's history by their offsets, its config, its files, and other paths that were asked for.

    In a context it serves at ``url``.
    """

    def __init__(self):
        self.history, self.config, self.files, self.others, self.exists = {}, {}, {}, set(), False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                answer = json.dumps(outer.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def handle(self):
                with suppress(ConnectionError):  # the client has ended
                    super().handle()

        for method in ("GET", "POST", "PUT"):
            setattr(Handler, f"do_{method}", Handler._answer)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path, body):
        """What a request is answered."""
        if path.startswith("/upload/"):
            self.files[path.removeprefix("/upload/")] = body
            return {}
        if path.endswith("/file_stream"):
            self._stream(json.loads(body).get("files") or {})
            return {"limits": {}}
        if path != "/graphql":
            self.others.add(path)
            return {}
        asked = json.loads(body)
        name, given = re.search(r"(?:query|mutation) (\w+)", asked["query"])[1], asked.get("variables") or {}
        known = {"Viewer": self._viewer, "RunResumeStatus": self._resume, "UpsertBucket": self._upsert}
        known |= {"CreateRunFiles": self._files}
        return {"data": known[name](given) if name in known else {}}

    def _stream(self, files):
        if lines := files.get("wandb-history.jsonl"):
            for number, line in enumerate(lines["content"], start=lines["offset"]):
                self.history[number] = json.loads(line)

    def _viewer(self, _):
        return {"viewer": {"id": "1", "entity": "lab", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _resume(self, given):
        if not self.exists:
            return {"model": {"id": "1", "name": "unstir", "bucket": None}}
        last = self.history[max(self.history)] if self.history else {}
        bucket = {
            "id": "2", "name": given["name"], "displayName": "run", "summaryMetrics": json.dumps(last), "tags": [],
            "logLineCount": 0, "historyLineCount": len(self.history), "eventsLineCount": 0, "notes": "",
            "historyTail": json.dumps([json.dumps(last)] if last else []), "eventsTail": "[]",
            "config": json.dumps(self.config), "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"model": {"id": "1", "name": "unstir", "entity": {"id": "3", "name": "lab"}, "bucket": bucket}}

    def _upsert(self, given):
        inserted, self.exists = not self.exists, True
        self.config = json.loads(given.get("config") or "{}") or self.config
        project = {"id": "1", "name": given.get("project") or "unstir", "entity": {"id": "3", "name": "lab"}}
        bucket = {"id": "2", "name": given["name"], "displayName": "run", "config": json.dumps(self.config)}
        bucket |= {"project": project, "historyLineCount": len(self.history)}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _files(self, given):
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": "2", "uploadHeaders": [], "files": files}}
