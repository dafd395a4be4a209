"""WebSocket: `websockets` over HTTP/1.1 Upgrade (RFC 6455), and over HTTP/2 extended CONNECT (RFC 8441) by `h2`."""

import asyncio
import contextlib

from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from case import HTTP2, Case, Failed, expect, same
from h2link import Link
from origin import pattern

MAX = 16 << 20
WAIT = 12


class Refused(Exception):
    """The handshake was answered with another status."""


class Closed(Exception):
    """The peer's close: (code, reason); 1006 when there was none."""


class OverHttp1:
    async def open(self, target, path, deflate=False, **more):
        context = target.ssl_context("http/1.1")
        try:
            self._socket = await connect(
                target.url(path, "ws"), ssl=context, max_size=MAX, proxy=None, open_timeout=WAIT, close_timeout=WAIT,
                host="127.0.0.1", port=target.port, server_hostname="localhost" if context else None,
                compression="deflate" if deflate else None, ping_interval=None, **more,
            )
        except InvalidStatus as error:
            raise Refused(error.response.status_code) from None
        self.subprotocol = self._socket.subprotocol
        self.extensions = [extension.name for extension in self._socket.protocol.extensions]
        return self

    async def send(self, message):
        await self._socket.send(message)

    async def receive(self):
        try:
            return await asyncio.wait_for(self._socket.recv(), WAIT)
        except ConnectionClosed as closed:
            raise Closed(closed.rcvd.code if closed.rcvd else 1006, closed.rcvd.reason if closed.rcvd else "") from None

    async def ping(self):
        await asyncio.wait_for(await self._socket.ping(b"are you there"), WAIT)

    async def close(self, code=1000, reason=""):
        """Closes, and gives the code the peer closed with."""
        await self._socket.close(code, reason)
        return self._socket.close_code

    async def drop(self):
        self._socket.transport.abort()
        await self._socket.wait_closed()


class OverHttp2:
    """The stream of one extended CONNECT on a connection of its own; frames by the protocol class of `websockets`."""

    async def open(self, target, path, deflate=False, subprotocols=()):
        context = target.ssl_context("h2")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.port, ssl=context, server_hostname="localhost" if context else None
        )
        self._link = Link(reader, writer, client_side=True)
        self._running = asyncio.create_task(self._link.run())
        try:
            await self._handshake(target, path, deflate, subprotocols)
        except BaseException:
            await self.drop()
            raise
        return self

    async def _handshake(self, target, path, deflate, subprotocols):
        await asyncio.wait_for(self._link.settings, WAIT)
        # RFC 8441, section 3: a client asks only after the server has said it may.
        expect(self._link.connection.remote_settings.enable_connect_protocol == 1, "no ENABLE_CONNECT_PROTOCOL in SETTINGS")
        factories = [ClientPerMessageDeflateFactory()] if deflate else []
        self._protocol = ClientProtocol(parse_uri("ws://localhost/"), extensions=factories, state=OPEN, max_size=MAX)
        self._stream = self._link.open_stream()
        fields = [("sec-websocket-version", "13")]
        fields += [("sec-websocket-extensions", "permessage-deflate")] if deflate else []
        fields += [("sec-websocket-protocol", ", ".join(subprotocols))] if subprotocols else []
        await self._stream.send_headers([
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https" if target.tls else "http"),
            (":path", path), (":authority", target.authority), *fields,
        ])
        head = await asyncio.wait_for(self._stream.head, WAIT)
        status = int(dict(head)[":status"])
        if status != 200:
            raise Refused(status)
        answer = Headers([pair for pair in head if not pair[0].startswith(":")])
        self.answer = answer
        self._protocol.extensions = self._protocol.process_extensions(answer)
        self.extensions = [extension.name for extension in self._protocol.extensions]
        self.subprotocol = answer.get("sec-websocket-protocol")
        self._frames, self._parts, self._pongs = [], [], 0

    async def send(self, message):
        if isinstance(message, list):
            await self._send_fragments(message)
        elif isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        await self._flush()

    async def _send_fragments(self, parts):
        self._protocol.send_text(parts[0].encode(), fin=False)
        for part in parts[1:-1]:
            self._protocol.send_continuation(part.encode(), fin=False)
        self._protocol.send_continuation(parts[-1].encode(), fin=True)

    async def _flush(self):
        for piece in self._protocol.data_to_send():
            await (self._stream.write(piece) if piece else self._stream.end())

    async def _next_frame(self):
        while not self._frames:
            try:
                data = await asyncio.wait_for(self._stream.read(), WAIT)
            except ConnectionError:
                raise Closed(1006, "") from None
            self._protocol.receive_data(data) if data else self._protocol.receive_eof()
            self._frames += self._protocol.events_received()
            await self._flush()
            if not data and not self._frames:
                raise Closed(1006, "")
        return self._frames.pop(0)

    async def receive(self):
        while True:
            frame = await self._next_frame()
            if frame.opcode is Opcode.CLOSE:
                close = self._protocol.close_rcvd
                raise Closed(close.code, close.reason)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._parts.append(frame)
                if frame.fin:
                    return self._message()

    def _message(self):
        parts, self._parts = self._parts, []
        data = b"".join(part.data for part in parts)
        return data.decode() if parts[0].opcode is Opcode.TEXT else data

    async def ping(self):
        self._protocol.send_ping(b"are you there")
        await self._flush()
        frame = await self._next_frame()
        same((frame.opcode, frame.data), (Opcode.PONG, b"are you there"), "answer to ping")

    async def close(self, code=1000, reason=""):
        self._protocol.send_close(code, reason)
        await self._flush()
        try:
            while True:
                await self.receive()
        except Closed as closed:
            return closed.args[0]

    async def drop(self):
        self._link.abort()
        await asyncio.wait([self._running])


@contextlib.asynccontextmanager
async def session(target, path="/ws", **more):
    socket = await (OverHttp2() if target.http2 else OverHttp1()).open(target, path, **more)
    try:
        yield socket
    finally:
        await socket.drop()


async def echo(target):
    async with session(target) as socket:
        for message in ("hello", "größer als ASCII", b"\x00\xff bytes", "", b""):
            await socket.send(message)
            same(await socket.receive(), message, "echo")
        same(await socket.close(), 1000, "close code")


async def many(target):
    async with session(target) as socket:
        sent = [f"message {n}" for n in range(300)]
        for message in sent:
            await socket.send(message)
        same([await socket.receive() for _ in sent], sent, "echoes")


async def large(target):
    async with session(target) as socket:
        body = pattern(4 << 20)
        # The origin echoes while it reads, so the one who sends must read too.
        answer, _ = await asyncio.gather(socket.receive(), socket.send(body))
        expect(answer == body, f"4 MB came back differently ({len(answer)} bytes)")


async def compressed(target):
    async with session(target, deflate=True) as socket:
        same(socket.extensions, ["permessage-deflate"], "extensions agreed on")
        text = "the same again " * 20_000
        for _ in range(2):
            await socket.send(text)
            expect(await socket.receive() == text, "the echo differs")


async def fragments(target):
    async with session(target) as socket:
        await socket.send(["one ", "two ", "three"])
        same(await socket.receive(), "one two three", "echo of three fragments")


async def ping(target):
    async with session(target) as socket:
        await socket.ping()


async def subprotocol(target):
    async with session(target, subprotocols=["soap", "echo"]) as socket:
        same(socket.subprotocol, "echo", "subprotocol")


async def fields(target):
    """The key's answer belongs to HTTP/1.1; its place here has `:protocol` (RFC 8441, section 5)."""
    async with session(target) as socket:
        found = {"sec-websocket-accept", "connection", "upgrade"} & set(socket.answer)
        expect(not found, f"the answer has {sorted(found)}")


async def close_by_client(target):
    async with session(target) as socket:
        same(await socket.close(4321, "enough"), 4321, "close code echoed")


async def close_by_origin(target):
    async with session(target) as socket:
        await socket.send("!close 4002")
        try:
            await socket.receive()
            raise Failed("no close")
        except Closed as closed:
            same(closed.args, (4002, "the origin says goodbye"), "close")


async def cut(target):
    """The origin drops the connection without a close frame: so does weir."""
    async with session(target) as socket:
        await socket.send("!cut")
        try:
            await socket.receive()
            raise Failed("no end")
        except Closed as closed:
            same(closed.args[0], 1006, "close code")


async def refused(target):
    try:
        async with session(target, "/ws?refuse"):
            raise Failed("no refusal")
    except Refused as answer:
        same(answer.args[0], 403, "status")


async def dead(target):
    try:
        async with session(target, "/dead"):
            raise Failed("no refusal")
    except Refused as answer:
        expect(answer.args[0] in (502, 503), f"status {answer.args[0]}")


CASES = [
    Case("websocket", "echo, text and bytes", echo),
    Case("websocket", "300 messages in order", many),
    Case("websocket", "4 MB message", large),
    Case("websocket", "permessage-deflate", compressed),
    Case("websocket", "fragments", fragments),
    Case("websocket", "ping", ping),
    Case("websocket", "subprotocol", subprotocol),
    Case("websocket", "no fields of HTTP/1.1", fields, clients=HTTP2),
    Case("websocket", "close code of the client", close_by_client),
    Case("websocket", "close code of the origin", close_by_origin),
    Case("websocket", "cut by the origin", cut),
    Case("websocket", "refused: 403", refused),
    Case("websocket", "dead endpoint: 502, 503", dead, weir_only=True),
]
