"""A gRPC server without generated code: messages are plain bytes. In clear and over TLS, for `run.py`.

    grpc_origin.py CERT KEY

Prints one line of JSON with the ports and serves until its standard input ends.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

# The same methods twice: what happens to the second is counted in a split of its own.
SERVICES = ("interop.Echo", "interop.Books")
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo:
    """One method for each shape of call. `Hang` and `Forsaken` let a client see that its end of a call arrived here."""

    def __init__(self):
        self._forsaken = {}
        self._lock = threading.Lock()

    def _event(self, key):
        with self._lock:
            return self._forsaken.setdefault(key, threading.Event())

    def unary(self, request, context):
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-first", "initial"),))
        context.set_trailing_metadata((
            ("x-last", "trailing"), ("x-last-bin", b"\x00\xff\x01"), ("x-sent", sent.get("x-sent", "nothing")),
        ))
        return request

    def server_stream(self, request, context):
        for number in range(int(request)):
            yield b"message %d" % number

    def client_stream(self, requests, context):
        return b"|".join(requests)

    def both_stream(self, requests, context):
        for request in requests:
            yield b"re: " + request

    def fail(self, request, context):
        code, text = request.decode().split(" ", 1)
        context.set_trailing_metadata((("x-why", "asked for"),))
        context.abort(getattr(grpc.StatusCode, code), text)

    def fail_late(self, request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "after two messages")

    def time_left(self, request, context):
        left = context.time_remaining()
        return b"none" if left is None else b"%f" % left

    def hang(self, request, context):
        """One message, then nothing until the client goes away; who it was is told to `forsaken`."""
        event = self._event(request)
        if not context.add_callback(event.set):
            event.set()
        yield b"started"
        event.wait(60)

    def forsaken(self, request, context):
        gone = self._event(request).wait(min(context.time_remaining() or 10, 10))
        return b"gone" if gone else b"still here"

    def handlers(self):
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "BothStream": grpc.stream_stream_rpc_method_handler(self.both_stream),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
            "TimeLeft": grpc.unary_unary_rpc_method_handler(self.time_left),
            "Hang": grpc.unary_stream_rpc_method_handler(self.hang),
            "Forsaken": grpc.unary_unary_rpc_method_handler(self.forsaken),
        }


def main(cert, key):
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=UNLIMITED)
    handlers = Echo().handlers()
    server.add_generic_rpc_handlers(tuple(grpc.method_handlers_generic_handler(name, handlers) for name in SERVICES))
    pair = (Path(key).read_bytes(), Path(cert).read_bytes())
    ports = {
        "http2": server.add_insecure_port("127.0.0.1:0"),
        "http2+tls": server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair])),
    }
    server.start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    server.stop(grace=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
