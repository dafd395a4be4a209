"""grpcio: every shape of call, deadlines, cancellation, large messages, errors; and gRPC errors made by weir."""

import asyncio
import os
import queue
import secrets
import time

# Its log would stand between the lines of the cases; what went wrong is in the status of the call.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from case import HTTP2, Case, Failed, command, expect, same
from h2link import Link
from origin import pattern

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
WAIT = 12


def channel(target, host="localhost"):
    # A pool of its own for each channel: no case meets the connections of another.
    options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", f"{host}:{target.grpc_port}")]
    address = f"ipv4:127.0.0.1:{target.grpc_port}"
    if not target.tls:
        return grpc.insecure_channel(address, options=options)
    trust = grpc.ssl_channel_credentials(target.ca.read_bytes())
    options.append(("grpc.ssl_target_name_override", host))
    return grpc.secure_channel(address, trust, options=options)


def call(on, shape, method, service="interop.Echo"):
    return getattr(on, shape)(f"/{service}/{method}")


def blocking(case):
    """grpcio's plain API blocks: each case runs in a thread, on a channel of its own."""

    async def run(target):
        def work():
            with channel(target) as on:
                case(on)

        await asyncio.to_thread(work)

    return run


def failure(work, code, what):
    try:
        work()
    except grpc.RpcError as error:
        same(error.code(), code, f"{what}: status ({error.details()})")
        return error
    raise Failed(f"{what}: no error")


def unary(on):
    answer, done = call(on, "unary_unary", "Unary").with_call(b"hello", timeout=WAIT, metadata=(("x-sent", "seen"),))
    same(answer, b"hello", "answer")
    same(dict(done.initial_metadata()).get("x-first"), "initial", "initial metadata")
    last = dict(done.trailing_metadata())
    same((last.get("x-last"), last.get("x-last-bin"), last.get("x-sent")), ("trailing", b"\x00\xff\x01", "seen"), "trailers")


def empty(on):
    same(call(on, "unary_unary", "Unary")(b"", timeout=WAIT), b"", "answer")


def large(on):
    body = pattern(4 << 20)
    expect(call(on, "unary_unary", "Unary")(body, timeout=WAIT) == body, "4 MB came back differently")


def compressed(on):
    body = b"the same again " * 20_000
    answer = call(on, "unary_unary", "Unary")(body, timeout=WAIT, compression=grpc.Compression.Gzip)
    expect(answer == body, "the answer differs")


def server_stream(on):
    seen = list(call(on, "unary_stream", "ServerStream")(b"500", timeout=WAIT))
    same(seen, [b"message %d" % n for n in range(500)], "messages")


def client_stream(on):
    sent = [b"part %d" % n for n in range(500)]
    same(call(on, "stream_unary", "ClientStream")(iter(sent), timeout=WAIT), b"|".join(sent), "answer")


def both_stream(on):
    """Ping-pong: each message goes out only when the answer to the one before is here."""
    outgoing = queue.Queue()
    answers = call(on, "stream_stream", "BothStream")(iter(outgoing.get, None), timeout=WAIT)
    for number in range(50):
        outgoing.put(b"ping %d" % number)
        same(next(answers), b"re: ping %d" % number, "answer")
    outgoing.put(None)
    same(list(answers), [], "end of the stream")


def large_stream(on):
    parts = [pattern(1 << 20)[n:] for n in range(4)]
    seen = list(call(on, "stream_stream", "BothStream")(iter(parts), timeout=WAIT))
    expect(seen == [b"re: " + part for part in parts], "four messages of 1 MB came back differently")


def many_calls(on):
    many = [call(on, "unary_unary", "Unary").future(b"%d" % n, timeout=WAIT) for n in range(200)]
    same([one.result() for one in many], [b"%d" % n for n in range(200)], "answers")


def deadline_told(on):
    left = float(call(on, "unary_unary", "TimeLeft")(b"", timeout=8))
    expect(4 < left <= 8.1, f"the server has {left} s of 8")


def deadline_kept(on):
    """The client gives up at its deadline, and the server's side of the call ends too."""
    name = secrets.token_bytes(6).hex().encode()
    seen = []
    failure(lambda: seen.extend(call(on, "unary_stream", "Hang")(name, timeout=1)),
            grpc.StatusCode.DEADLINE_EXCEEDED, "a call that hangs")
    same(call(on, "unary_unary", "Forsaken")(name, timeout=WAIT), b"gone", "the server's side")


def cancel(on):
    name = secrets.token_bytes(6).hex().encode()
    hanging = call(on, "unary_stream", "Hang")(name, timeout=WAIT)
    same(next(hanging), b"started", "first message")
    hanging.cancel()
    failure(lambda: next(hanging), grpc.StatusCode.CANCELLED, "a cancelled call")
    same(call(on, "unary_unary", "Forsaken")(name, timeout=WAIT), b"gone", "the server's side")


def errors(on):
    for code in ("NOT_FOUND", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "UNAUTHENTICATED"):
        text = f"for {code}: 100 % größer\nthan thought"
        error = failure(lambda: call(on, "unary_unary", "Fail")(f"{code} {text}".encode(), timeout=WAIT),
                        getattr(grpc.StatusCode, code), code)
        same(error.details(), text, "details")
        same(dict(error.trailing_metadata()).get("x-why"), "asked for", "trailing metadata")


def error_after_messages(on):
    seen = []
    error = failure(lambda: seen.extend(call(on, "unary_stream", "FailLate")(b"", timeout=WAIT)),
                    grpc.StatusCode.DATA_LOSS, "an error after messages")
    same((seen, error.details()), ([b"one", b"two"], "after two messages"), "messages and details")


def unimplemented(on):
    failure(lambda: call(on, "unary_unary", "NoSuchMethod")(b"", timeout=WAIT), grpc.StatusCode.UNIMPLEMENTED, "a call")


def unavailable(on):
    error = failure(lambda: call(on, "unary_unary", "Unary", "interop.Dead")(b"hello", timeout=WAIT),
                    grpc.StatusCode.UNAVAILABLE, "no endpoint answers")
    # grpcio makes the same status of its own when it cannot connect: this tells that the answer is weir's.
    metadata = dict(error.trailing_metadata() or ())
    expect("weir-error" in metadata, f"no weir-error in {metadata}")


def unavailable_stream(on):
    """The client is still sending when the error comes."""
    outgoing = queue.Queue()
    outgoing.put(b"first")
    answers = call(on, "stream_stream", "BothStream", "interop.Dead")(iter(outgoing.get, None), timeout=WAIT)
    try:
        failure(lambda: next(answers), grpc.StatusCode.UNAVAILABLE, "no endpoint answers")
    finally:
        outgoing.put(None)


async def no_route(target):
    """404 is UNIMPLEMENTED in gRPC's table of HTTP statuses."""

    def work():
        with channel(target, host="nobody.localhost") as on:
            return failure(lambda: call(on, "unary_unary", "Unary")(b"", timeout=WAIT),
                           grpc.StatusCode.UNIMPLEMENTED, "no route")

    error = await asyncio.to_thread(work)
    same(dict(error.trailing_metadata() or ()).get("weir-error"), "no-route", "weir-error")


async def on_the_books(target):
    """weir judges a call by its `grpc-status`: UNAVAILABLE is an error of the version, NOT_FOUND is an answer."""
    split = f'split="grpc-books-{target.upstream.replace("+", "-")}"'

    async def errors_counted():
        _, text, _ = await command("curl", "-sS", "-q", "--noproxy", "*", f"http://127.0.0.1:{target.admin_port}/metrics")
        lines = [line for line in text.decode().splitlines() if line.startswith("weir_errors_total{")]
        return sum(float(line.split()[-1]) for line in lines if split in line and 'reason="grpc"' in line)

    def work():
        with channel(target) as on:
            for code in ["NOT_FOUND"] * 3 + ["UNAVAILABLE"] * 4:
                failure(lambda: call(on, "unary_unary", "Fail", "interop.Books")(f"{code} x".encode(), timeout=WAIT),
                        getattr(grpc.StatusCode, code), code)

    before, end = await errors_counted(), time.monotonic() + WAIT
    await asyncio.to_thread(work)
    while (seen := await errors_counted() - before) < 4 and time.monotonic() < end:
        # The counts of the workers are gathered from time to time.
        await asyncio.sleep(0.1)
    same(seen, 4.0, "weir_errors_total of reason grpc rose by")


async def trailers_only(target):
    """An error by weir is one header block with the end of the stream: 200, content-type, grpc-status 14."""
    context = target.ssl_context("h2")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", target.grpc_port, ssl=context, server_hostname="localhost" if context else None
    )
    link = Link(reader, writer, client_side=True)
    running = asyncio.create_task(link.run())
    try:
        # Nothing of ours may go out before the preface, which `run` sends.
        await asyncio.wait_for(link.settings, WAIT)
        stream = link.open_stream()
        await stream.send_headers([
            (":method", "POST"), (":scheme", "https" if target.tls else "http"), (":path", "/interop.Dead/Unary"),
            (":authority", target.authority), ("te", "trailers"), ("content-type", "application/grpc"),
        ])
        await stream.write(b"\0\0\0\0\0", end=True)
        head = dict(await asyncio.wait_for(stream.head, WAIT))
        await asyncio.wait_for(stream.read_all(), WAIT)
        same((head[":status"], head.get("grpc-status")), ("200", "14"), "status and grpc-status")
        expect(head.get("content-type", "").startswith("application/grpc"), f"content-type {head.get('content-type')}")
        expect("weir-error" in head, "no weir-error")
        expect(stream.ended_by_head, "the header block does not end the stream")
    finally:
        link.abort()
        await asyncio.wait([running])


def shape(name, run, **more):
    return Case("grpcio", name, run if asyncio.iscoroutinefunction(run) else blocking(run), HTTP2, HTTP2, **more)


CASES = [
    shape("unary, metadata both ways", unary),
    shape("empty message", empty),
    shape("4 MB message both ways", large),
    shape("gzip", compressed),
    shape("server streaming", server_stream),
    shape("client streaming", client_stream),
    shape("bidirectional ping-pong", both_stream),
    shape("bidirectional 1 MB messages", large_stream),
    shape("200 calls at once", many_calls),
    shape("deadline told to the server", deadline_told),
    shape("deadline kept on both sides", deadline_kept),
    shape("cancelled on both sides", cancel),
    shape("errors with details", errors),
    shape("error after messages", error_after_messages),
    shape("unimplemented", unimplemented),
    shape("status on the books", on_the_books, weir_only=True),
    shape("no route: UNIMPLEMENTED", no_route, weir_only=True),
    shape("dead endpoint: UNAVAILABLE", unavailable, weir_only=True),
    shape("dead endpoint, streaming", unavailable_stream, weir_only=True),
    shape("dead endpoint, trailers only", trailers_only, weir_only=True),
]
