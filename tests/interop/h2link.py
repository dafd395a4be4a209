"""An HTTP/2 connection over asyncio streams, for either side; framing and rules are those of the `h2` package.

A stream's bytes are acknowledged when they are read, so a reader that stops exerts back-pressure, and a writer waits
for the peer's window. Both sides offer extended CONNECT (RFC 8441).
"""

import asyncio

import h2.config
import h2.connection
import h2.events as events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings


class Stream:
    """One stream. `head` is the peer's first final header block, `early` its 1xx blocks, `trailers` what came last."""

    def __init__(self, link, number):
        self.link = link
        self.number = number
        self.head = asyncio.get_running_loop().create_future()
        self.early = []
        self.trailers = []
        self.ended_by_head = False
        self._chunks = asyncio.Queue()
        self._ended = False
        self._broken = None
        self._window = asyncio.Event()

    async def read(self):
        """The next bytes; empty at the end. Raises ConnectionResetError when the peer cut the stream."""
        if self._ended:
            if self._broken:
                raise self._broken
            return b""
        data, flow = await self._chunks.get()
        if data is None:
            self._ended = True
            return await self.read()
        if flow:
            self.link.acknowledge(self, flow)
        return data if data else await self.read()

    async def read_all(self):
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    async def send_headers(self, headers, end=False):
        if self._broken:
            raise self._broken
        self.link.connection.send_headers(self.number, headers, end_stream=end)
        await self.link.flush()

    async def write(self, data, end=False):
        view = memoryview(data)
        while view or end:
            if self._broken:
                raise self._broken
            room = self.link.connection.local_flow_control_window(self.number)
            room = min(room, self.link.connection.max_outbound_frame_size, len(view))
            if view and room <= 0:
                self._window.clear()
                await self._window.wait()
                continue
            last = end and room == len(view)
            self.link.connection.send_data(self.number, bytes(view[:room]), end_stream=last)
            await self.link.flush()
            view = view[room:]
            if last:
                return

    async def end(self, trailers=None):
        if trailers:
            await self.send_headers(trailers, end=True)
        else:
            await self.write(b"", end=True)

    async def reset(self, code=ErrorCodes.CANCEL):
        if not self._broken:
            self.link.connection.reset_stream(self.number, code)
            await self.link.flush()

    # What the link tells.

    def put(self, data, flow):
        self._chunks.put_nowait((data, flow))

    def window_opened(self):
        self._window.set()

    def finish(self, error=None):
        if error and not self._broken:
            self._broken = error
            self._window.set()
            if not self.head.done():
                self.head.set_exception(error)
                self.head.exception()  # Nobody may be waiting for it.
        self._chunks.put_nowait((None, 0))


class Link:
    """The connection. `on_request(stream)` is called for each new stream of a client, as a task of its own."""

    def __init__(self, reader, writer, client_side, on_request=None):
        config = h2.config.H2Configuration(client_side=client_side, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config)
        self.settings = asyncio.get_running_loop().create_future()
        self._reader, self._writer = reader, writer
        self._on_request = on_request
        self._streams = {}
        self._tasks = set()

    async def run(self):
        """Speaks until the connection ends."""
        # Set as initial values: `update` would take effect only after an acknowledgement that was never asked for.
        self.connection.local_settings = Settings(client=self.connection.config.client_side, initial_values=self._offer())
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(8 << 20)
        error = ConnectionResetError("connection closed")
        try:
            await self.flush()
            while data := await self._reader.read(1 << 16):
                for event in self.connection.receive_data(data):
                    self._dispatch(event)
                await self.flush()
        except (OSError, h2.exceptions.ProtocolError) as cause:
            error = ConnectionResetError(f"connection broken: {cause!r}")
            self._send_what_is_left()
        finally:
            for stream in list(self._streams.values()):
                stream.finish(error)
            if not self.settings.done():
                self.settings.cancel()
            self._writer.close()

    def _offer(self):
        offer = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20, SettingCodes.MAX_CONCURRENT_STREAMS: 1000}
        offer[SettingCodes.MAX_FRAME_SIZE] = 1 << 14
        client_side = self.connection.config.client_side
        offer[SettingCodes.ENABLE_PUSH if client_side else SettingCodes.ENABLE_CONNECT_PROTOCOL] = 0 if client_side else 1
        return offer

    def open_stream(self):
        stream = Stream(self, self.connection.get_next_available_stream_id())
        self._streams[stream.number] = stream
        return stream

    def acknowledge(self, stream, flow):
        try:
            self.connection.acknowledge_received_data(flow, stream.number)
        except h2.exceptions.ProtocolError:
            return  # The stream is over: nothing to open a window for.
        self._send_what_is_left()

    async def flush(self):
        self._send_what_is_left()
        await self._writer.drain()

    def _send_what_is_left(self):
        if (data := self.connection.data_to_send()) and not self._writer.is_closing():
            self._writer.write(data)

    def abort(self):
        self._writer.transport.abort()

    def _dispatch(self, event):
        stream = self._streams.get(getattr(event, "stream_id", None))
        match event:
            case events.RequestReceived():
                self._accept(event)
            case events.ResponseReceived() if stream:
                stream.ended_by_head = event.stream_ended is not None
                stream.head.set_result(event.headers)
            case events.InformationalResponseReceived() if stream:
                stream.early.append(event.headers)
            case events.DataReceived() if stream:
                stream.put(event.data, event.flow_controlled_length)
            case events.TrailersReceived() if stream:
                stream.trailers = event.headers
            case events.StreamEnded() if stream:
                stream.finish()
            case events.StreamReset() if stream:
                stream.finish(ConnectionResetError(f"stream reset, code {event.error_code!r}"))
            case events.ConnectionTerminated():
                for number, open_stream in self._streams.items():
                    if number > (event.last_stream_id or 0):
                        open_stream.finish(ConnectionResetError(f"GOAWAY {event.error_code!r}"))
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                if isinstance(event, events.RemoteSettingsChanged) and not self.settings.done():
                    self.settings.set_result(True)
                for waiting in self._streams.values():
                    waiting.window_opened()

    def _accept(self, event):
        stream = Stream(self, event.stream_id)
        stream.head.set_result(event.headers)
        stream.ended_by_head = event.stream_ended is not None
        self._streams[stream.number] = stream
        task = asyncio.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream):
        try:
            await self._on_request(stream)
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass  # The peer went away in the middle; a client that minds says so itself.
        finally:
            self._streams.pop(stream.number, None)
