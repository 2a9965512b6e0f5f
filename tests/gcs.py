"""A little Google Cloud Storage on this machine: as much of its JSON API as our clients use.

`python -m tests.gcs` serves one empty bucket and prints the address. Objects have generations, and
requests may be conditional on them: TensorStore's OCDBT is written so.
"""

import itertools
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"


class Store:
    """Objects by name: (generation, bytes)."""

    def __init__(self):
        self.objects = {}
        self.lock, self.numbers = threading.RLock(), itertools.count(1)

    def put(self, name, data, wanted):
        """Return the generation, or None where another than `wanted` (0: none) is there."""
        with self.lock:
            if wanted is not None and int(wanted) != self.objects.get(name, (0,))[0]:
                return None
            self.objects[name] = next(self.numbers), data
            return self.objects[name][0]

    def about(self, name):
        generation, data = self.objects[name]
        told = {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(data))}
        return {**told, "generation": str(generation), "updated": "2026-01-01T00:00:00Z"}

    def list(self, prefix, delimiter):
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix):
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                prefixes.add(prefix + head + cut)
            else:
                items.append(self.about(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = Store()

    def log_message(self, *_):
        pass

    def answer(self, code, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        headers.setdefault("Content_Type", "application/json")
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one(self):
        address = urllib.parse.urlsplit(self.path)
        query = {key: value[0] for key, value in urllib.parse.parse_qs(address.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        path = re.sub(r"^(/upload|/download)?/storage/v1/b/", "", address.path)
        bucket, _, rest = path.partition("/")
        name = urllib.parse.unquote(rest.removeprefix("o/")) if rest.startswith("o/") else ""
        with self.store.lock:
            if bucket != BUCKET:
                self.answer(404, {"error": {"code": 404, "message": f"no bucket {bucket}"}})
            elif self.command == "GET" and not rest:
                self.answer(200, {"kind": "storage#bucket", "name": BUCKET})
            elif self.command == "GET" and rest == "o":
                told = self.store.list(query.get("prefix", ""), query.get("delimiter", ""))
                self.answer(200, told)
            elif self.command in ("POST", "PUT"):
                self.upload(query, body, name)
            elif name not in self.store.objects:
                self.answer(404, {"error": {"code": 404, "message": f"no object {name}"}})
            elif self.command == "DELETE":
                del self.store.objects[name]
                self.answer(204)
            else:
                self.read(query, name)

    do_GET = do_POST = do_PUT = do_DELETE = handle_one

    def read(self, query, name):
        generation, data = self.store.objects[name]
        given = query.get("ifGenerationNotMatch")
        if query.get("alt") != "media":
            self.answer(200, self.store.about(name))
        elif given is not None and int(given) == generation:
            self.answer(304, x_goog_generation=generation)
        else:
            about = {"x_goog_generation": generation, "Content_Type": "application/octet-stream"}
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
            if not asked:
                return self.answer(200, data, **about)
            start = int(asked[1]) if asked[1] else len(data) - int(asked[2])
            stop = min(len(data), int(asked[2]) + 1 if asked[1] and asked[2] else len(data))
            if start >= len(data):
                return self.answer(416, Content_Range=f"bytes */{len(data)}")
            about["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self.answer(206, data[start:stop], **about)

    def upload(self, query, body, name):
        kind, wanted = query.get("uploadType"), query.get("ifGenerationMatch")
        if kind == "resumable":  # whose bytes are wanted in one go
            place = f"http://{self.headers['Host']}/upload/storage/v1/b/{BUCKET}/o?name="
            return self.answer(200, Location=place + urllib.parse.quote(query["name"], safe=""))
        if kind == "multipart":
            mark = re.search(r"boundary=\"?([^\";]+)", self.headers["Content-Type"])[1].encode()
            line = b"\r\n" if body.startswith(b"--" + mark + b"\r") else b"\n"
            parts = body.split(b"--" + mark)[1:3]
            about, body = (part.partition(2 * line)[2].removesuffix(line) for part in parts)
            name = json.loads(about)["name"]
        name = name or query["name"]
        generation = self.store.put(name, body, wanted)
        if generation is None:
            return self.answer(412, {"error": {"code": 412, "message": "another generation"}})
        self.answer(200, self.store.about(name))


def serve():
    """Return a running server; its address is http://127.0.0.1:<server_port>."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # clients that are killed
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    print(f"http://127.0.0.1:{serve().server_port}", flush=True)
    threading.Event().wait()
