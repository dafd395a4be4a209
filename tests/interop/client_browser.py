"""A page in headless Chromium, driven over the DevTools protocol: fetch, EventSource, WebSocket, upload.

One browser serves the whole run; the page of a mix is opened once and each of its checks is a case.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import subprocess

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from case import Case, Failed, expect, same
from origin import pattern
from processes import WITH_US

# Nothing but our page: no updates, no telemetry, no QUIC, and certificates of a CA that lives for this run.
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --no-default-browser-check
--disable-background-networking --disable-component-update --disable-sync --disable-default-apps --disable-extensions
--disable-features=Translate,OptimizationHints,MediaRouter --metrics-recording-only --no-proxy-server
--ignore-certificate-errors --remote-debugging-port=0
""".split()
WAIT = 50


class Browser:
    """Chromium, started when the first page is asked for."""

    def __init__(self, program, profile):
        self._program, self._profile = program, profile
        self._process = None
        self._numbers = itertools.count(1)
        self._answers = {}
        self._handshakes = {}
        self._pages = {}

    async def results(self, target):
        """What the checks of the page gave, by name. A page that failed is not tried again for the next check."""
        key = (target.client, target.upstream)
        if key not in self._pages:
            self._pages[key] = Failed("the page did not finish")
            try:
                self._pages[key] = await self._open_page(target)
            except Exception as error:
                self._pages[key] = Failed(f"the page: {error}")
        if isinstance(self._pages[key], Failed):
            raise self._pages[key]
        return self._pages[key]

    async def _open_page(self, target):
        if self._process is None:
            expect(self._program, "no browser is installed")
            await self._start()
        opened = await self._ask("Target.createTarget", {"url": "about:blank"})
        attached = await self._ask("Target.attachToTarget", {"targetId": opened["targetId"], "flatten": True})
        session = attached["sessionId"]
        await self._ask("Network.enable", {}, session)
        moved = await self._ask("Page.navigate", {"url": target.url("/page")}, session)
        expect("errorText" not in moved, f"the page does not open: {moved.get('errorText')}")
        results = await self._evaluate_when_there(session)
        results["handshake"] = {"status": self._handshakes.get(session)}
        return results

    async def _evaluate_when_there(self, session):
        """`Page.navigate` returns at the commit; the script may not have run yet, so ask on `load`."""
        expression = """
            new Promise(yes => document.readyState === 'complete' ? yes() : addEventListener('load', yes))
                .then(() => window.done)
        """
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        got = await self._ask("Runtime.evaluate", asked, session)
        value = got.get("result", {}).get("value")
        expect(isinstance(value, dict), f"the page gives no results: {got}")
        return value

    async def _start(self):
        self._process = await asyncio.create_subprocess_exec(
            *WITH_US, self._program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        address = await asyncio.wait_for(self._address(), WAIT)
        self._errors = asyncio.create_task(self._process.stderr.read())
        self._socket = await connect(address, max_size=64 << 20, proxy=None)
        self._listening = asyncio.create_task(self._listen())

    async def _address(self):
        while line := await self._process.stderr.readline():
            if line.startswith(b"DevTools listening on "):
                return line.decode().split()[-1]
        raise Failed("the browser ended before it listened")

    async def _listen(self):
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                message = json.loads(message)
                if waiting := self._answers.pop(message.get("id"), None):
                    waiting.set_result(message)
                elif message.get("method") == "Network.webSocketHandshakeResponseReceived":
                    self._handshakes[message["sessionId"]] = message["params"]["response"]["status"]

    async def _ask(self, method, params, session=None):
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        await self._socket.send(json.dumps(message))
        answer = await asyncio.wait_for(self._answers[number], WAIT)
        expect("error" not in answer, f"{method}: {answer.get('error')}")
        return answer["result"]

    async def stop(self):
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


def check(name):
    """A case that looks at one result of the page."""

    def register(look):
        async def run(target):
            found = (await target.browser.results(target)).get(name)
            expect(found is not None, "the page did not get that far")
            expect("error" not in found, str(found.get("error")))
            look(target, found)

        # Over TLS a browser always takes HTTP/2 when it is offered, and never speaks it in clear. In direct mode the
        # origin over TLS offers HTTP/1.1 alone.
        CASES.append(Case("chromium", look.__doc__, run, clients=("http1", "http2+tls"), seconds=90))
        return look

    return register


CASES = []


@check("fetch")
def fetched(target, found):
    "fetch"
    wanted = {"status": 200, "text": "hello\n", "protocol": "h2" if target.http2 else "http/1.1"}
    same(found, wanted, "answer and protocol")


@check("many")
def many(target, found):
    "30 fetches at once"
    same(found["paths"], [f"/headers?n={n}" for n in range(30)], "paths")


@check("upload")
def upload(target, found):
    "POST of 1 MB"
    wanted = hashlib.sha256(b"\x07" * (1 << 20)).hexdigest()
    same((found["length"], found["sha256"]), (1 << 20, wanted), "what the origin read")


@check("download")
def download(target, found):
    "download 4 MB"
    same(found["sha256"], hashlib.sha256(pattern(4 << 20)).hexdigest(), f"hash of {found['length']} bytes")


@check("early")
def early(target, found):
    "answer behind 103"
    same(found["text"], "after the hints\n", "body")


@check("cut")
def cut(target, found):
    "cut answer is visible"
    same(found["seen"], "TypeError", "outcome")


@check("events")
def events(target, found):
    "EventSource, unbuffered"
    same(found["seen"], [[str(n), f"event {n}"] for n in (1, 2, 3)], "events")


@check("websocket")
def websocket(target, found):
    "WebSocket echo and close"
    same(found["seen"], ["hello", [0, 255, 1], "large"], "echoes")
    same((found["code"], found["reason"], found["wasClean"]), (4002, "the origin says goodbye", True), "close")
    same((found["subprotocol"], found["extensions"]), ("echo", "permessage-deflate"), "agreed on")


@check("handshake")
def handshake(target, found):
    "WebSocket over the page's HTTP"
    # Over HTTP/2 the answer is 200 (RFC 8441); a browser that was not offered it would open HTTP/1.1 for a 101.
    same(found["status"], 200 if target.http2 else 101, "status of the handshake")
