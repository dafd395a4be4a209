"""The processes of a run: certificates, origins, weir. Each is ended by its id, and by the kernel if the driver is killed."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from case import ALL, AUTO, HTTP2, Failed, command

HERE = Path(__file__).parent
WAIT = 30
# A signal for whoever is left when this process is gone; `setpriv` becomes the program, so the id is the program's.
WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")


async def certificates(folder):
    """A CA for this run and a certificate for localhost: (ca, cert, key)."""
    ca, ca_key, cert, key, request = (folder / n for n in ("ca.pem", "ca.key", "cert.pem", "key.pem", "request.pem"))
    extensions = folder / "extensions.cnf"
    # The second name is one that no route has.
    extensions.write_text(
        "subjectAltName = DNS:localhost, DNS:nobody.localhost, IP:127.0.0.1\nbasicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n"
    )
    elliptic = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    await openssl("req", "-x509", *elliptic, "-subj", "/CN=interop CA", "-days", "2", "-keyout", ca_key, "-out", ca,
                  "-addext", "keyUsage = critical, keyCertSign")
    await openssl("req", *elliptic, "-subj", "/CN=localhost", "-keyout", key, "-out", request)
    await openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-set_serial", "2", "-days", "2",
                  "-extfile", extensions, "-out", cert)
    return ca, cert, key


async def openssl(*words):
    code, _, errors = await command("openssl", *words)
    if code:
        raise Failed(f"openssl {words[0]}: {errors}")


class Child:
    """A process whose output goes to a file; `ready` is the first line for which `wanted` gives something."""

    def __init__(self, name, process, log):
        self.name, self.log, self._process = name, log, process

    @classmethod
    async def start(cls, name, folder, wanted, *words):
        log = folder / f"{name}.log"
        process = await asyncio.create_subprocess_exec(
            *WITH_US, *map(str, words),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, limit=1 << 20,
        )
        child = cls(name, process, log)
        ready = asyncio.get_running_loop().create_future()
        child._copying = asyncio.create_task(child._copy(ready, wanted))
        try:
            child.ready = await asyncio.wait_for(ready, WAIT)
        except asyncio.TimeoutError:
            await child.stop()
            raise Failed(f"{name} is not ready within {WAIT} s; its output:\n{child.tail()}") from None
        return child

    async def _copy(self, ready, wanted):
        with self.log.open("wb") as log:
            while line := await self._process.stdout.readline():
                log.write(line)
                log.flush()
                if not ready.done() and (found := wanted(line.decode(errors="replace"))):
                    ready.set_result(found)
        if not ready.done():
            ready.set_exception(Failed(f"{self.name} ended at once; its output:\n{self.tail()}"))

    def ended(self):
        return self._process.returncode

    def tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    async def stop(self):
        """SIGTERM, SIGKILL if that is not heard; the exit code."""
        if self._process.returncode is None:
            self._process.stdin.close()
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 12)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._copying
        return self._process.returncode


def ports_line(line):
    return json.loads(line) if line.startswith("{") else None


async def origins(folder, cert, key):
    start = lambda name, file: Child.start(name, folder, ports_line, sys.executable, HERE / file, cert, key)
    return await asyncio.gather(start("origin", "origin.py"), start("grpc-origin", "grpc_origin.py"))


def dead_port():
    """A port where nobody listens and, while the socket is held, nobody else will: (socket, port)."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


def listener(upstream, tls):
    return f"{'tls' if tls else 'plain'}-{upstream.replace('+', '-')}"


def configuration(folder, ca, cert, key, app, rpc, dead):
    """One pair of listeners, clear and TLS, for each kind of upstream; one weir serves all mixes."""
    parts = [f"[admin]\nbind = '127.0.0.1:0'\nstate_dir = '{folder / 'state'}'\n[defaults.retries]\nattempts = 0\n"]
    for upstream in (*ALL, *AUTO):
        clear, secure = listener(upstream, False), listener(upstream, True)
        parts.append(f"[listeners.{clear}]\nbind = '127.0.0.1:0'\n[listeners.{secure}]\nbind = '127.0.0.1:0'\n")
        parts.append(f"[listeners.{secure}.tls]\ncertificates = [{{ cert = '{cert}', key = '{key}' }}]\n")
        found = AUTO.get(upstream, upstream)
        parts += split(upstream, "app", "/", app[found], ca)
        parts += split(upstream, "dead", "/dead", dead, ca)
        if found in HTTP2:
            parts += split(upstream, "grpc", "/interop.Echo", rpc[found], ca)
            parts += split(upstream, "grpc-books", "/interop.Books", rpc[found], ca)
            parts += split(upstream, "grpc-dead", "/interop.Dead", dead, ca)
    return "\n".join(parts)


def split(upstream, kind, prefix, port, ca):
    name = f"{kind}-{upstream.replace('+', '-')}"
    protocol, secure = upstream.split("+")[0], upstream.endswith("+tls")
    both = ", ".join(f'"{listener(upstream, tls)}"' for tls in (False, True))
    version = [f"endpoints = ['{'https://' if secure else ''}127.0.0.1:{port}']", f"protocol = '{protocol}'"]
    if secure:
        version.append(f"tls = {{ ca = '{ca}', server_name = 'localhost' }}")
    return [
        f"[[routes]]\nname = '{name}'\nlisteners = [{both}]\n"
        f"match = {{ host = 'localhost', path_prefix = '{prefix}' }}\nsplit = '{name}'\n",
        f"[splits.{name}.versions.v1]\n" + "\n".join(version) + "\n",
    ]


def banner(line):
    """Addresses by listener from weir's first line, `weir 0.1  web http://127.0.0.1:40409  ...`."""
    if not line.startswith("weir "):
        return None
    return {name: int(port) for name, port in re.findall(r"([\w-]+) \w+://[\d.]+:(\d+)", line)}


async def weir(program, folder, text):
    file = folder / "weir.toml"
    file.write_text(text)
    return await Child.start("weir", folder, banner, program, "run", "-c", file)


def find(*names):
    return next(filter(None, map(shutil.which, names)), None)
