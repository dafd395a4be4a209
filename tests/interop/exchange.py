"""One request and its answer as the origin's application sees it, over HTTP/1.1 or HTTP/2.

An exchange has `method`, `path` (with its query), `headers` (lower-case pairs), `protocol`, and after the last `read`
`trailers`. The application calls `inform` any number of times, then `start`, `write`s and `end`; or
`accept_websocket`, after which `read` and `write` move the tunnel's bytes.
"""

import asyncio

import h2.exceptions
from websockets.utils import accept_key

from h2link import Link


class Http1:
    protocol = "http/1.1"

    def __init__(self, reader, writer, head):
        self._reader, self._writer = reader, writer
        request_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.path, self.version = request_line.split(" ")
        self.headers = [(k.lower(), v.strip()) for k, v in (line.split(":", 1) for line in lines)]
        self.trailers = []
        self.reusable = self.value("connection").lower() != "close" and self.version == "HTTP/1.1"
        self._continue_owed = self.value("expect").lower() == "100-continue"
        self._chunked = self.value("transfer-encoding").lower() == "chunked"
        self._left = int(self.value("content-length") or 0)
        self._body_done = not self._chunked and self._left == 0
        self._tunnel = False
        self._chunked_answer = False

    def value(self, name):
        return ", ".join(v for k, v in self.headers if k == name)

    @property
    def framing(self):
        return "chunked" if self._chunked else "length" if self.value("content-length") else "none"

    @property
    def wants_websocket(self):
        return self.value("upgrade").lower() == "websocket" and "upgrade" in self.value("connection").lower()

    async def read(self):
        if self._tunnel:
            return await self._reader.read(1 << 16)
        if self._body_done:
            return b""
        if self._continue_owed:
            self._continue_owed = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await (self._read_chunk() if self._chunked else self._read_length())

    async def _read_length(self):
        data = await self._reader.read(min(self._left, 1 << 16))
        if not data:
            raise ConnectionResetError("body cut")
        self._left -= len(data)
        self._body_done = self._left == 0
        return data

    async def _read_chunk(self):
        size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size:
            data = await self._reader.readexactly(size + 2)
            return data[:-2]
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            name, value = line.decode("latin-1").split(":", 1)
            self.trailers.append((name.lower(), value.strip()))
        self._body_done = True
        return b""

    async def inform(self, status, headers):
        await self._send_head(status, headers)

    async def start(self, status, headers):
        names = [k for k, _ in headers]
        self._chunked_answer = "content-length" not in names and self.method != "HEAD"
        extra = [("transfer-encoding", "chunked")] if self._chunked_answer else []
        # A body that was not asked for may come or not: only a new connection is free of doubt.
        if not self._body_done:
            self.reusable = False
        if not self.reusable:
            extra.append(("connection", "close"))
        await self._send_head(status, headers + extra)

    async def _send_head(self, status, headers):
        lines = [f"HTTP/1.1 {status} Status"] + [f"{k}: {v}" for k, v in headers]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        await self._writer.drain()

    async def write(self, data):
        if self._chunked_answer and data:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self._writer.write(data)
        await self._writer.drain()

    async def end(self, trailers=()):
        if self._tunnel:
            self.reusable = False
            self._writer.write_eof() if self._writer.can_write_eof() else self._writer.close()
        elif self._chunked_answer:
            fields = "".join(f"{k}: {v}\r\n" for k, v in trailers)
            await self._send(f"0\r\n{fields}\r\n")

    async def _send(self, text):
        self._writer.write(text.encode("latin-1"))
        await self._writer.drain()

    async def accept_websocket(self, headers):
        accept = accept_key(self.value("sec-websocket-key"))
        upgrade = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]
        await self._send_head(101, upgrade + headers)
        self._tunnel, self.reusable = True, False

    async def cut(self):
        """Ends the connection in the middle, visibly."""
        self.reusable = False
        await self._writer.drain()
        self._writer.transport.abort()


class Http2:
    protocol = "h2"

    def __init__(self, stream):
        self._stream = stream
        self.headers = list(stream.head.result())
        self.method, self.path = self.value(":method"), self.value(":path")

    def value(self, name):
        # A cookie may come in several lines (RFC 9113, section 8.2.3).
        return ("; " if name == "cookie" else ", ").join(v for k, v in self.headers if k == name)

    @property
    def trailers(self):
        return self._stream.trailers

    @property
    def framing(self):
        return "length" if self.value("content-length") else "none" if self._stream.ended_by_head else "stream"

    @property
    def wants_websocket(self):
        return self.method == "CONNECT" and self.value(":protocol") == "websocket"

    async def read(self):
        if self.value("expect").lower() == "100-continue":
            self.headers = [(k, v) for k, v in self.headers if k != "expect"]
            await self.inform(100, [])
        return await self._stream.read()

    async def inform(self, status, headers):
        await self._stream.send_headers([(":status", str(status))] + headers)

    async def start(self, status, headers):
        await self._stream.send_headers([(":status", str(status))] + headers)

    async def write(self, data):
        await self._stream.write(data)

    async def end(self, trailers=()):
        await self._stream.end(list(trailers))

    async def accept_websocket(self, headers):
        await self._stream.send_headers([(":status", "200")] + headers)

    async def cut(self):
        await self._stream.reset()


async def serve_http1(reader, writer, application):
    try:
        while True:
            exchange = Http1(reader, writer, await reader.readuntil(b"\r\n\r\n"))
            await application(exchange)
            if not exchange.reusable:
                break
    except (OSError, asyncio.IncompleteReadError):
        pass  # The client is gone, or was never more than a connection.
    finally:
        writer.close()


async def serve_http2(reader, writer, application):
    async def on_request(stream):
        await application(Http2(stream))

    try:
        await Link(reader, writer, client_side=False, on_request=on_request).run()
    except h2.exceptions.ProtocolError:
        pass
