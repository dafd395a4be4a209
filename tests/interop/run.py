#!/usr/bin/env python3
"""Independent clients through weir, over every mix of protocols: one line for each case, exit code 1 if one failed.

    run.py [--weir PROGRAM | --direct] [--list] [WORD ...]

WORDs choose the cases whose line contains all of them, e.g. `run.py grpcio "http2+tls -> http2 "`. `--direct` leaves
weir out and connects each client to the origin of its own protocol: it proves the clients and origins themselves.
The needed Python packages are in requirements.txt; `tests/run` installs everything and runs this.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import client_browser
import client_curl
import client_grpc
import client_nghttp
import client_socket
import client_ws
import processes
from case import ALL, AUTO, Failed, Target

# What the client speaks to weir, what weir speaks to the origin. A case says which of the sides it is for.
MIXES = [(client, upstream) for client in ALL for upstream in ALL] + [("http2+tls", upstream) for upstream in AUTO]
CASES = [
    case
    for module in (client_curl, client_socket, client_nghttp, client_grpc, client_ws, client_browser)
    for case in module.CASES
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ROOT = Path(__file__).resolve().parents[2]
# For the cases; what is left of three minutes is for starting and stopping.
BUDGET = 165


def line_of(mix, case):
    return f"{mix[0]:>9} -> {mix[1]:<9}  {case.client:<9}  {case.name}"


def selected(options):
    for mix in MIXES:
        for case in CASES:
            possible = mix[0] == mix[1] and not case.weir_only if options.direct else True
            if case.fits(*mix) and possible and all(word in line_of(mix, case) for word in options.words):
                yield mix, case


def weir_program():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [p for p in (target / kind / "weir" for kind in ("debug", "release")) if p.exists()]
    if not built:
        sys.exit("interop: no weir under target/: build it first, or name one with --weir")
    return max(built, key=lambda path: path.stat().st_mtime)


@contextlib.asynccontextmanager
async def ended(child):
    """Ends the child at the end. One that ended before, or leaves with an error after SIGTERM, is a failure."""
    try:
        yield child
    finally:
        child.early = child.ended() is not None
        await child.stop()


@contextlib.asynccontextmanager
async def world(options, folder):
    """Everything that runs beside the clients: gives a function from a mix to its target, and weir."""
    ca, cert, key = await processes.certificates(folder)
    async with contextlib.AsyncExitStack() as stack:
        app, rpc = [await stack.enter_async_context(ended(c)) for c in await processes.origins(folder, cert, key)]
        weir = None
        if not options.direct:
            held, dead = processes.dead_port()
            stack.callback(held.close)
            text = processes.configuration(folder, ca, cert, key, app.ready, rpc.ready, dead)
            started = await processes.weir(options.weir or weir_program(), folder, text)
            weir = await stack.enter_async_context(ended(started))
        browser = client_browser.Browser(processes.find(*BROWSERS), folder / "browser")
        stack.push_async_callback(browser.stop)

        def target(mix):
            if weir is None:
                port, grpc_port, admin_port = app.ready[mix[1]], rpc.ready.get(mix[1], 0), 0
            else:
                port = grpc_port = weir.ready[processes.listener(mix[1], mix[0].endswith("+tls"))]
                admin_port = weir.ready["dashboard"]
            return Target(*mix, port, grpc_port, ca, folder, admin_port, browser)

        yield target, weir


async def run_case(case, target, seconds):
    try:
        await asyncio.wait_for(case.run(target), min(case.seconds, seconds))
    except asyncio.TimeoutError:
        return f"no end within {min(case.seconds, seconds):.0f} s"
    except Failed as failure:
        return str(failure)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


async def run_all(options, folder):
    """Runs the chosen cases; how many failed."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    failures, began = 0, time.monotonic()
    async with world(options, folder) as (target, weir):
        for mix, case in selected(options):
            left = BUDGET - (time.monotonic() - began)
            reason = await run_case(case, target(mix), left) if left > 0 else "not run: the time is over"
            failures += reason is not None
            verdict = "ok    " if reason is None else "FAILED"
            print(f"{verdict} {line_of(mix, case)}{'' if reason is None else ': ' + ' '.join(reason.split())}", flush=True)
    return failures + (weir is not None and not survived(weir))


def survived(weir):
    """weir must have been there to the end, ended well when told to, and never panicked."""
    log = weir.log.read_text(errors="replace")
    if not weir.early and weir.ended() == 0 and "panicked at" not in log:
        return True
    print(f"FAILED weir itself: exit code {weir.ended()}{', before its time' if weir.early else ''}; its output:\n{weir.tail()}")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", help="the program; default: the newest under target/")
    parser.add_argument("--direct", action="store_true", help="without weir")
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    chosen = list(selected(options))
    if options.list or not chosen:
        print("\n".join(line_of(*one) for one in chosen) or "interop: no case has these words")
        return 0 if chosen else 2
    # asyncio warns of children that end while they are being killed.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="weir-interop-"))
    try:
        failures = asyncio.run(run_all(options, folder))
    except Failed as failure:
        print(f"FAILED to start: {failure}\ninterop: logs and configuration are in {folder}")
        return 1
    print(f"interop: {len(chosen)} cases, {failures} failed, {time.monotonic() - began:.0f} s")
    if failures:
        print(f"interop: logs and configuration are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("interop: stopped")
