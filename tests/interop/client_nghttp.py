"""nghttp and h2load, from nghttp2: an HTTP/2 client that shows frames, and load over many streams."""

import hashlib
import json
import re

from case import ALL, HTTP2, Case, command, expect, same
from origin import pattern


async def nghttp(target, path, *more):
    code, output, errors = await command("nghttp", "--timeout=15", *more, target.url(path))
    expect(code == 0, f"nghttp ended with {code}: {errors[-200:]}")
    return output


def received(text, number, name):
    """Values of a field the server sent on a stream, as `nghttp -v` prints them."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.findall(rf"recv \(stream_id={number}(?:, [a-z_]+)?\) {re.escape(name)}: (.*)", plain)


def streams(text):
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return dict.fromkeys(int(n) for n in re.findall(r"recv \(stream_id=(\d+)(?:, [a-z_]+)?\) :status: 200", plain))


async def many_streams(target):
    """40 requests on one connection at once."""
    text = (await nghttp(target, "/hello", "-nv", "--multiply=40")).decode()
    same(len(streams(text)), 40, "streams answered with 200")


async def download(target):
    body = await nghttp(target, "/pattern?n=4194304")
    expect(body == pattern(4 << 20), f"4 MB came back differently ({len(body)} bytes)")


async def small_windows(target):
    """A client that lets 16 KiB out at a time: back-pressure, and nothing lost."""
    body = await nghttp(target, "/pattern?n=1048576", "--window-bits=14", "--connection-window-bits=14")
    expect(body == pattern(1 << 20), f"1 MB came back differently ({len(body)} bytes)")


async def upload_with_trailers(target):
    body = pattern(300_000)
    path = target.scratch / "nghttp-upload"
    path.write_bytes(body)
    # A declared length would leave no place for trailers towards an HTTP/1.1 origin (RFC 9112, section 7.1.2).
    seen = json.loads(await nghttp(
        target, "/digest", f"--data={path}", "--no-content-length", "-H", "trailer: x-sum, x-end",
        "--trailer=x-sum: 77", "--trailer=x-end: yes",
    ))
    same((seen["length"], seen["sha256"]), (len(body), hashlib.sha256(body).hexdigest()), "what the origin read")
    same(seen["trailers"], [["x-sum", "77"], ["x-end", "yes"]], "request trailers at the origin")


async def expect_continue(target):
    path = target.scratch / "nghttp-expect"
    path.write_bytes(pattern(50_000))
    text = (await nghttp(target, "/digest", "-nv", f"--data={path}", "--expect-continue")).decode()
    number = next(iter(streams(text)), 0)
    same(received(text, number, ":status"), ["100", "200"], "statuses in order")


async def response_trailers(target):
    text = (await nghttp(target, "/trailers", "-nv", "-H", "te: trailers")).decode()
    number = next(iter(streams(text)), 0)
    same((received(text, number, "x-checksum"), received(text, number, "x-count")), (["0d9c"], ["19"]), "trailers")


async def early_hints(target):
    text = (await nghttp(target, "/early", "-nv")).decode()
    number = next(iter(streams(text)), 0)
    same(received(text, number, ":status"), ["103", "103", "200"], "statuses in order")


async def h2load(target, path, *more, requests=600):
    how = [] if target.http2 else ["--h1"]
    code, output, errors = await command("h2load", f"--requests={requests}", "-c", "4", *how, *more, target.url(path))
    expect(code == 0, f"h2load ended with {code}: {errors[-200:]}")
    text = output.decode()
    counts = re.search(r"requests: .*", text)
    wanted = f"{requests} succeeded, 0 failed, 0 errored, 0 timeout"
    expect(counts and wanted in counts[0], f"h2load says {counts and counts[0]}")
    expect(f"status codes: {requests} 2xx" in text, "not all answers were 2xx")
    return text


async def load(target):
    await h2load(target, "/hello", *(["-m", "20"] if target.http2 else []))


async def load_with_bodies(target):
    path = target.scratch / "h2load-body"
    path.write_bytes(pattern(20_000))
    more = ["-m", "10"] if target.http2 else []
    text = await h2load(target, "/echo", f"--data={path}", *more, requests=120)
    size = re.search(r"\((\d+)\) data", text)
    expect(size and int(size[1]) >= 120 * 20_000, f"bytes of bodies: {size and size[1]}")


CASES = [
    Case("nghttp", "40 streams at once", many_streams, clients=HTTP2),
    Case("nghttp", "download 4 MB", download, clients=HTTP2),
    Case("nghttp", "small windows", small_windows, clients=HTTP2),
    Case("nghttp", "upload with trailers", upload_with_trailers, clients=HTTP2),
    Case("nghttp", "expect: 100 passed on", expect_continue, clients=HTTP2),
    Case("nghttp", "response trailers", response_trailers, clients=HTTP2),
    Case("nghttp", "103 early hints", early_hints, clients=HTTP2),
    Case("h2load", "600 requests", load, clients=ALL),
    Case("h2load", "120 echoed bodies", load_with_bodies, clients=ALL),
]
