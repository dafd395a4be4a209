"""What a case is, and what it gets to know: the words shared by the driver and the clients."""

import asyncio
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Sides of a mix. A client side names the listener it uses and what it speaks there.
PLAIN = ("http1", "http2")
SECURE = ("http1+tls", "http2+tls")
ALL = ("http1", "http1+tls", "http2", "http2+tls")
HTTP1 = ("http1", "http1+tls")
HTTP2 = ("http2", "http2+tls")
# Upstreams whose protocol weir finds out, and what it must find: HTTP/1.1 in clear, over TLS what ALPN says.
AUTO = {"auto": "http1", "auto+tls": "http2+tls"}


@dataclass(frozen=True)
class Case:
    """`run(target)` returns nothing and raises on failure. `clients` and `upstreams`: the sides it makes sense for."""

    client: str
    name: str
    run: object
    clients: tuple = ALL
    upstreams: tuple = ALL
    # It is about what weir itself does: there is nothing to see without it.
    weir_only: bool = False
    seconds: float = 20

    def fits(self, client, upstream):
        return client in self.clients and AUTO.get(upstream, upstream) in self.upstreams


@dataclass(frozen=True)
class Target:
    """Where a case goes: weir's listener for the upstream, or with `--direct` the upstream itself."""

    client: str
    upstream: str
    port: int
    grpc_port: int
    ca: Path
    scratch: Path
    # 0 with `--direct`.
    admin_port: int
    # The one browser of the run.
    browser: object = None

    @property
    def tls(self):
        return self.client in SECURE

    @property
    def http2(self):
        return self.client in HTTP2

    @property
    def authority(self):
        return f"localhost:{self.port}"

    def url(self, path, scheme="http"):
        return f"{scheme}{'s' if self.tls else ''}://{self.authority}{path}"

    def ssl_context(self, *protocols):
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(list(protocols))
        return context


class Failed(Exception):
    """A case's answer was not the one it must be."""


def expect(is_so, what):
    if not is_so:
        raise Failed(what)


def same(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: {shorten(found)} instead of {shorten(wanted)}")


def shorten(value, limit=160):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


async def command(*words, stdin=None, timeout=18):
    """Runs a client program: (exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(stdin), timeout)
    except asyncio.TimeoutError:
        raise Failed(f"{words[0]} did not end within {timeout} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output, errors.decode(errors="replace")
