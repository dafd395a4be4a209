"""The origin: one application on four ports (HTTP/1.1 and HTTP/2, each in clear and over TLS), for `run.py`.

    origin.py CERT KEY

Prints one line of JSON with the ports and serves until its standard input ends, so it never outlives who started it.
"""

import asyncio
import hashlib
import json
import ssl
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from exchange import serve_http1, serve_http2

PAGE = (Path(__file__).parent / "page.html").read_bytes()
HIDDEN = {"content-length", "transfer-encoding"}


def pattern(length):
    """Bytes that a reordering or a hole would change; the clients make the same."""
    block = b"".join(i.to_bytes(4, "big") for i in range(1 << 14))
    return (block * (length // len(block) + 1))[:length]


async def answer(exchange, body, status=200, kind="text/plain", extra=()):
    body = body.encode() if isinstance(body, str) else body
    await exchange.start(status, [("content-type", kind), ("content-length", str(len(body))), *extra])
    if exchange.method != "HEAD":
        await exchange.write(body)
    await exchange.end()


async def read_all(exchange):
    parts = []
    while part := await exchange.read():
        parts.append(part)
    return b"".join(parts)


async def hello(exchange, query):
    await answer(exchange, "hello\n", extra=[("set-cookie", "a=1"), ("set-cookie", "b=2")])


async def page(exchange, query):
    await answer(exchange, PAGE, kind="text/html; charset=utf-8")


async def headers(exchange, query):
    seen = {"protocol": exchange.protocol, "method": exchange.method, "path": exchange.path}
    seen["headers"] = [pair for pair in exchange.headers]
    await answer(exchange, json.dumps(seen), kind="application/json")


async def pattern_of(exchange, query):
    await answer(exchange, pattern(int(query["n"])), kind="application/octet-stream")


async def digest(exchange, query):
    body = await read_all(exchange)
    seen = {"length": len(body), "sha256": hashlib.sha256(body).hexdigest(), "framing": exchange.framing}
    seen["trailers"] = list(exchange.trailers)
    await answer(exchange, json.dumps(seen), kind="application/json")


async def echo(exchange, query):
    """Every piece goes back before the next is read: the answer begins while the request is still coming."""
    await exchange.start(200, [("content-type", "application/octet-stream")])
    while part := await exchange.read():
        await exchange.write(part)
    await exchange.end()


async def trailers(exchange, query):
    await exchange.start(200, [("content-type", "text/plain"), ("trailer", "x-checksum, x-count")])
    await exchange.write(b"body with trailers\n")
    await exchange.end([("x-checksum", "0d9c"), ("x-count", "19")])


async def early(exchange, query):
    await exchange.inform(103, [("link", "</style.css>; rel=preload")])
    await exchange.inform(103, [("link", "</script.js>; rel=preload")])
    await answer(exchange, "after the hints\n")


async def refuse(exchange, query):
    await answer(exchange, "not that\n", status=403)


async def status(exchange, query):
    await exchange.start(int(query["code"]), [])
    await exchange.end()


async def cut(exchange, query):
    length = [] if "unknown" in query else [("content-length", "1000")]
    await exchange.start(200, [("content-type", "text/plain"), *length])
    await exchange.write(b"only the beginning")
    await exchange.cut()


GATES = {}


async def events(exchange, query):
    """Three events; with a gate, each after the first waits until a request to /open has been seen."""
    gate = GATES.setdefault(query["gate"], asyncio.Semaphore(0)) if "gate" in query else None
    await exchange.start(200, [("content-type", "text/event-stream"), ("cache-control", "no-cache")])
    for number in (1, 2, 3):
        await exchange.write(f"id: {number}\nevent: tick\ndata: event {number}\n\n".encode())
        if gate:
            await gate.acquire()
    await exchange.end()


async def open_gate(exchange, query):
    GATES.setdefault(query["gate"], asyncio.Semaphore(0)).release()
    await answer(exchange, "open\n")


async def websocket(exchange, query):
    if not exchange.wants_websocket:
        return await answer(exchange, "a WebSocket, please\n", status=426, extra=[("upgrade", "websocket")])
    if "refuse" in query:
        return await answer(exchange, "not you\n", status=403)
    asked = Headers([pair for pair in exchange.headers if not pair[0].startswith(":")])
    # With subprotocols of its own, the class refuses a client that asks for none.
    known = ["chat", "echo"] if "sec-websocket-protocol" in asked else None
    protocol = ServerProtocol(
        extensions=[ServerPerMessageDeflateFactory()], subprotocols=known, state=OPEN, max_size=16 << 20
    )
    accepted, protocol.extensions = protocol.process_extensions(asked)
    chosen = protocol.process_subprotocol(asked)
    fields = [("sec-websocket-extensions", accepted)] if accepted else []
    await exchange.accept_websocket(fields + ([("sec-websocket-protocol", chosen)] if chosen else []))
    await converse(exchange, protocol)


async def converse(exchange, protocol):
    """Echoes frame by frame; `!close CODE` closes from this side, `!cut` drops the connection."""
    while True:
        data = await exchange.read()
        protocol.receive_data(data) if data else protocol.receive_eof()
        for frame in protocol.events_received():
            if frame.data == b"!cut":
                return await exchange.cut()
            react(protocol, frame)
        for piece in protocol.data_to_send():
            await (exchange.write(piece) if piece else exchange.end())
        if not data:
            return


def react(protocol, frame):
    if frame.opcode is Opcode.TEXT and frame.data.startswith(b"!close "):
        protocol.send_close(int(frame.data.split()[1]), "the origin says goodbye")
    elif frame.opcode is Opcode.TEXT:
        protocol.send_text(frame.data, fin=frame.fin)
    elif frame.opcode is Opcode.BINARY:
        protocol.send_binary(frame.data, fin=frame.fin)
    elif frame.opcode is Opcode.CONT:
        protocol.send_continuation(frame.data, fin=frame.fin)


HANDLERS = {
    "/hello": hello, "/page": page, "/headers": headers, "/pattern": pattern_of, "/digest": digest, "/echo": echo,
    "/trailers": trailers, "/early": early, "/refuse": refuse, "/status": status, "/cut": cut, "/events": events,
    "/open": open_gate, "/ws": websocket,
}


async def application(exchange):
    parts = urlsplit(exchange.path)
    query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
    handler = HANDLERS.get(parts.path)
    await (handler(exchange, query) if handler else answer(exchange, "no such thing here\n", status=404))


def tls(cert, key, protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols([protocol])
    return context


async def main(cert, key):
    loop = asyncio.get_running_loop()
    stop = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stop), sys.stdin)
    servers = {
        "http1": (serve_http1, None),
        "http1+tls": (serve_http1, tls(cert, key, "http/1.1")),
        "http2": (serve_http2, None),
        "http2+tls": (serve_http2, tls(cert, key, "h2")),
    }
    ports, running = {}, []
    for name, (serve, context) in servers.items():
        def connected(reader, writer, serve=serve):
            return serve(reader, writer, application)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context, limit=1 << 18)
        running.append(server)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await stop.read()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
