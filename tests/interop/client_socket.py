"""HTTP/1.1 by hand, for what no ready-made client sends: request trailers, and requests without waiting for answers."""

import asyncio
import contextlib
import hashlib
import json

from case import HTTP1, Case, expect, same

WAIT = 12


@contextlib.asynccontextmanager
async def connection(target):
    context = target.ssl_context("http/1.1")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", target.port, ssl=context, server_hostname="localhost" if context else None
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader):
    """(status, body) of an answer with a content length or in chunks."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT)).decode("latin-1")
    status_line, *lines = head.strip().split("\r\n")
    fields = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    if "content-length" in fields:
        return int(status_line.split()[1]), await asyncio.wait_for(reader.readexactly(int(fields["content-length"])), WAIT)
    same(fields.get("transfer-encoding"), "chunked", "framing of the answer")
    body = b""
    while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), WAIT), 16):
        body += (await asyncio.wait_for(reader.readexactly(size + 2), WAIT))[:-2]
    await reader.readuntil(b"\r\n")
    return int(status_line.split()[1]), body


async def request_trailers(target):
    async with connection(target) as (reader, writer):
        writer.write(
            f"POST /digest HTTP/1.1\r\nHost: {target.authority}\r\nTransfer-Encoding: chunked\r\n"
            "Trailer: x-sum, x-end\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 77\r\nx-end: yes\r\n\r\n".encode()
        )
        status, body = await answer(reader)
        same(status, 200, "status")
        seen = json.loads(body)
        same(seen["sha256"], hashlib.sha256(b"hello world").hexdigest(), "what the origin read")
        same(seen["trailers"], [["x-sum", "77"], ["x-end", "yes"]], "request trailers at the origin")


async def pipelined(target):
    """Ten requests in one write; the answers come in order."""
    async with connection(target) as (reader, writer):
        for number in range(10):
            writer.write(f"GET /headers?n={number} HTTP/1.1\r\nHost: {target.authority}\r\n\r\n".encode())
        answers = [await answer(reader) for _ in range(10)]
        expect(all(status == 200 for status, _ in answers), f"statuses {[status for status, _ in answers]}")
        same([json.loads(body)["path"] for _, body in answers], [f"/headers?n={n}" for n in range(10)], "paths in order")


CASES = [
    Case("socket", "request trailers", request_trailers, clients=HTTP1),
    Case("socket", "ten requests in one write", pipelined, clients=HTTP1),
]
