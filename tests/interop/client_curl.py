"""curl: HTTP/1.1 and HTTP/2, in clear by prior knowledge and over TLS by ALPN."""

import asyncio
import hashlib
import json
import secrets
import subprocess
from dataclasses import dataclass

from case import HTTP1, Case, Failed, command, expect, same
from origin import pattern

HOW = {"http1": "--http1.1", "http1+tls": "--http1.1", "http2": "--http2-prior-knowledge", "http2+tls": "--http2"}
VERSION = {"http1": "1.1", "http1+tls": "1.1", "http2": "2", "http2+tls": "2"}
# What curl says of an answer that was cut: HTTP/2 framing, partial file, nothing at all, receive error, stream error.
CUT = (16, 18, 52, 56, 92)


@dataclass
class Answer:
    code: int
    status: int
    version: str
    heads: list
    body: bytes
    uploaded: int
    connects: int
    errors: str

    def fields(self):
        """The last head and, behind it, the trailers."""
        return self.heads[-1][1]

    def value(self, name):
        return [v for k, v in self.fields() if k == name]


def words(target, *more):
    trust = ["--cacert", target.ca] if target.tls else []
    return ["curl", "-sS", "-q", "--noproxy", "*", "--ipv4", "--max-time", "15", HOW[target.client], *trust, *more]


async def curl(target, path, *more, stdin=None, ok=True):
    head, body = (target.scratch / f"curl-{secrets.token_hex(6)}.{kind}" for kind in ("head", "body"))
    form = "%{http_code} %{http_version} %{size_upload} %{num_connects}"
    code, output, errors = await command(
        *words(target, "-D", head, "-o", body, "-w", form, *more, target.url(path)), stdin=stdin
    )
    status, version, uploaded, connects = output.decode().split(" ")
    heads = parse_heads(head.read_text("latin-1") if head.exists() else "")
    content = body.read_bytes() if body.exists() else b""
    answer = Answer(code, int(status), version, heads, content, int(uploaded), int(connects), errors.strip())
    if ok:
        expect(code == 0, f"curl ended with {code}: {answer.errors}")
        same(version, VERSION[target.client], "version of HTTP")
    return answer


def parse_heads(text):
    """[(status, fields)] of each head; trailers stand after the blank line of the last head and count as its fields."""
    heads = []
    for line in text.splitlines():
        if line.startswith("HTTP/"):
            heads.append((int(line.split()[1]), []))
        elif ":" in line and heads:
            name, value = line.split(":", 1)
            heads[-1][1].append((name.lower(), value.strip()))
    return heads


async def get(target):
    answer = await curl(target, "/hello")
    same((answer.status, answer.body), (200, b"hello\n"), "answer")
    same(answer.value("set-cookie"), ["a=1", "b=2"], "two fields of one name")


async def head(target):
    answer = await curl(target, "/hello", "--head")
    same((answer.status, answer.value("content-length")), (200, ["6"]), "answer to HEAD")


async def statuses(target):
    for code in (204, 304, 404, 500):
        answer = await curl(target, f"/status?code={code}")
        same((answer.status, answer.body), (code, b""), "answer")


async def download(target):
    answer = await curl(target, "/pattern?n=16777216")
    expect(answer.body == pattern(1 << 24), f"16 MB came back differently ({len(answer.body)} bytes)")


async def upload(target):
    """4 MB of a declared length."""
    body = pattern(4 << 20)
    answer = await curl(target, "/digest", "--data-binary", "@-", "-H", "expect:", stdin=body)
    check_digest(answer, body, ("length",))


async def upload_chunked(target):
    """1 MB of a length that nobody knows beforehand."""
    body = pattern(1 << 20)
    answer = await curl(target, "/digest", "-X", "POST", "-T", "-", "-H", "expect:", stdin=body)
    check_digest(answer, body, ("chunked", "stream"))


def check_digest(answer, body, framings):
    same(answer.status, 200, "status")
    seen = json.loads(answer.body)
    same((seen["length"], seen["sha256"]), (len(body), hashlib.sha256(body).hexdigest()), "what the origin read")
    expect(seen["framing"] in framings, f"framing at the origin is {seen['framing']}")


async def echo(target):
    """The answer streams back while the request still comes."""
    body = pattern(2 << 20)
    answer = await curl(target, "/echo", "-X", "POST", "-T", "-", "-H", "expect:", stdin=body)
    expect(answer.body == body, f"the echo differs ({len(answer.body)} of {len(body)} bytes)")


async def trailers(target):
    asks = ["-H", "TE: trailers"] + ([] if target.http2 else ["-H", "Connection: TE"])
    answer = await curl(target, "/trailers", *asks)
    same(answer.body, b"body with trailers\n", "body")
    same((answer.value("x-checksum"), answer.value("x-count")), (["0d9c"], ["19"]), "trailers")


async def early_hints(target):
    answer = await curl(target, "/early")
    same([status for status, _ in answer.heads], [103, 103, 200], "statuses in order")
    links = [dict(fields).get("link") for status, fields in answer.heads if status == 103]
    same(links, ["</style.css>; rel=preload", "</script.js>; rel=preload"], "early links")
    same(answer.body, b"after the hints\n", "body")


async def expect_continue(target):
    body = pattern(100_000)
    answer = await curl(target, "/digest", "--data-binary", "@-", "-H", "Expect: 100-continue",
                        "--expect100-timeout", "12", stdin=body)
    same([status for status, _ in answer.heads], [100, 200], "statuses in order")
    check_digest(answer, body, ("length",))


async def expect_refused(target):
    """The origin's 403 comes through, and the body is never asked for."""
    answer = await curl(target, "/refuse", "--data-binary", "@-", "-H", "Expect: 100-continue",
                        "--expect100-timeout", "12", stdin=pattern(100_000))
    same([status for status, _ in answer.heads], [403], "statuses in order")
    same(answer.uploaded, 0, "bytes sent")


async def upgrade_ignored(target):
    """An offer of h2c by Upgrade is answered over HTTP/1.1, and the origin does not learn of it (curl --http2)."""
    answer = await curl(target, "/headers", "--http2", ok=False)
    expect(answer.code == 0, f"curl ended with {answer.code}: {answer.errors}")
    same((answer.version, answer.status), ("1.1", 200), "answer")
    names = {name for name, _ in json.loads(answer.body)["headers"]}
    expect(not names & {"upgrade", "http2-settings"}, f"the origin saw {sorted(names)}")


async def request_headers(target):
    answer = await curl(target, "/headers?a=%2F&b=c%20d", "-H", "X-One: 1", "-H", "X-One: 2", "-b", "k=v; l=w")
    seen = json.loads(answer.body)
    same((seen["method"], seen["path"]), ("GET", "/headers?a=%2F&b=c%20d"), "request line")
    values = {}
    for name, value in seen["headers"]:
        values.setdefault(name, []).append(value)
    same(", ".join(values.get("x-one", [])), "1, 2", "repeated field")
    same("; ".join(values.get("cookie", [])), "k=v; l=w", "cookies")
    host = values.get("host") or values.get(":authority")
    same(host, [target.authority], "host")


async def connection_reused(target):
    code, output, errors = await command(
        *words(target, "-w", "%{num_connects} ", "-o", "/dev/null", target.url("/hello"), "-o", "/dev/null",
               target.url("/status?code=404"), "-o", "/dev/null", target.url("/hello"))
    )
    expect(code == 0, f"curl ended with {code}: {errors}")
    same(output.decode().split(), ["1", "0", "0"], "connections made")


async def cut_answer(target):
    for path in ("/cut", "/cut?unknown"):
        answer = await curl(target, path, ok=False)
        expect(answer.code in CUT, f"curl ended with {answer.code}, the cut of {path} was not visible ({answer.status})")


async def events(target):
    """Server-sent events: each is seen before the origin is let go on to the next, so nothing can be holding them."""
    gate = secrets.token_hex(6)
    process = await asyncio.create_subprocess_exec(
        *map(str, words(target, "-N", target.url(f"/events?gate={gate}"))), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )
    try:
        for number in (1, 2, 3):
            wanted = f"id: {number}\nevent: tick\ndata: event {number}\n\n".encode()
            try:
                seen = await asyncio.wait_for(process.stdout.readexactly(len(wanted)), 8)
            except asyncio.TimeoutError:
                raise Failed(f"event {number} does not arrive until the next is made: it is buffered") from None
            except asyncio.IncompleteReadError as end:
                raise Failed(f"the stream ended before event {number}: {end.partial!r}") from None
            same(seen, wanted, "event")
            await curl(target, f"/open?gate={gate}")
        rest = await asyncio.wait_for(process.stdout.read(), 8)
        same((rest, await process.wait()), (b"", 0), "end of the stream")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def no_route(target):
    answer = await curl(target, "/hello", "-H", "Host: nobody.example")
    same((answer.status, answer.value("weir-error")), (404, ["no-route"]), "answer by weir")


async def no_endpoint(target):
    answer = await curl(target, "/dead")
    expect(answer.status in (502, 503), f"status {answer.status}")
    expect(answer.value("weir-error") in (["connect-failed"], ["no-endpoint"]), f"weir-error {answer.value('weir-error')}")


CASES = [
    Case("curl", "get", get),
    Case("curl", "head", head),
    Case("curl", "204, 304, 404, 500", statuses),
    Case("curl", "download 16 MB", download),
    Case("curl", "upload 4 MB", upload),
    Case("curl", "upload of unknown length", upload_chunked),
    Case("curl", "echo 2 MB both ways", echo),
    Case("curl", "trailers", trailers),
    Case("curl", "103 early hints", early_hints),
    # Over HTTP/2 curl does not wait for a 100; nghttp does.
    Case("curl", "expect: 100 passed on", expect_continue, clients=HTTP1),
    Case("curl", "expect: refusal passed on", expect_refused, clients=HTTP1),
    Case("curl", "upgrade to h2c ignored", upgrade_ignored, clients=("http1",), weir_only=True),
    Case("curl", "request headers", request_headers),
    # curl 7.88 fails its own second request after prior knowledge, whoever the server is.
    Case("curl", "connection reused", connection_reused, clients=("http1", "http1+tls", "http2+tls")),
    Case("curl", "cut answer is visible", cut_answer),
    Case("curl", "server-sent events unbuffered", events),
    Case("curl", "no route: 404", no_route, weir_only=True),
    Case("curl", "dead endpoint: 502, 503", no_endpoint, weir_only=True),
]
