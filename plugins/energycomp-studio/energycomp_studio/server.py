"""The server: this computer only, and only the paths that the page needs."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias

import attrs

from energycomp.errors import InputError
from energycomp.images import overlay_css
from energycomp.plugins import names
from energycomp_studio.pictures import MAX_UPLOAD

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY = MAX_UPLOAD * 4 // 3 + 2_000_000  # bytes of a request: an upload in base64, and the scene beside it
# What the page asks for. There is no path that reads a file of this computer, or that stores one.
PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}
FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
CALLS = {"queue/join", "queue/data", "cancel", "reset", "startup-events", "app_id", "theme.css"}
STREAM = "/gradio_api/queue/data"
CLOSING = b'"msg":"close_stream"'  # inside a string of a message, the quotes would be escaped
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class _TooLargeError(Exception):
    pass


@attrs.frozen
class Guard:
    """An ASGI application in front of another: refuses foreign hosts and origins, other paths, and large requests.

    The page allows no connection to any other server (Content-Security-Policy).
    """

    inner: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        if (refused := _refusal(scope)) is not None:
            await _answer(send, *refused)
            return
        left = MAX_BODY
        started = False

        async def limited() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLargeError
            return message

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        try:
            await self.inner(scope, limited, guarded)
        except _TooLargeError:
            if not started:
                await _answer(send, 413, f"a request is at most {MAX_BODY:,} bytes")


@attrs.frozen
class OpenStream:
    """An ASGI application around Gradio whose stream of updates stays open as long as the page does.

    Gradio closes the stream after the last task. What the page starts while that message is on its way would be
    answered into a stream that nobody reads, until the page starts something else.
    """

    inner: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != STREAM:
            await self.inner(scope, receive, send)
            return
        started, closing = False, True

        async def kept(message: MutableMapping[str, Any]) -> None:
            nonlocal started, closing
            again = message["type"] == "http.response.start" and started
            started = True
            closing = closing or CLOSING in message.get("body", b"")
            if not (again or closing):
                await send(message)

        while closing:
            closing = False
            await self.inner(dict(scope), receive, kept)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    """Chooses status and reason of a request that is refused; None for one that is served."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    name, _, port = headers.get("host", "").rpartition(":")
    if (name if name and port.isdecimal() else headers.get("host", "")) not in HOSTS:
        return 403, "this page is served to 127.0.0.1 and localhost only"
    origin = headers.get("origin")
    if origin is not None and origin not in {f"http://{headers['host']}", f"https://{headers['host']}"}:
        return 403, "this page takes no requests of other pages"
    path, method = scope["path"], scope["method"]
    known = path in PAGES or path.startswith(FOLDERS) or path.removeprefix("/gradio_api/").strip("/") in CALLS
    if not known or ".." in path or method not in ("GET", "HEAD", "POST"):
        return 404, "there is no such page"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return 413, f"a request is at most {MAX_BODY:,} bytes"
    return None


async def _answer(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def application(model: str, *, device: str = "cpu") -> Guard:
    """Builds the guarded page; `model` is shown first."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    os.environ.update(GRADIO_SSR_MODE="False", GRADIO_MCP_SERVER="False", GRADIO_RUN_HISTORY="False")
    import fastapi
    import gradio as gr

    from energycomp_studio.app import build
    from energycomp_studio.parts import static

    api = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        api,
        build(model, device=device),
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=static("page.css"),
        # gradio limits `css` to what is inside of its frame
        head=f"<style>{overlay_css()}\n{static('frame.css')}</style><script>{static('address.js')}</script>",
        show_error=False,
    )
    return Guard(OpenStream(api))


@contextlib.contextmanager
def running(model: str, *, port: int = 0, device: str = "cpu") -> Iterator[str]:
    """Serves the page in a thread, for tests; the address is that of `serve`."""
    import uvicorn

    with _listen(port) as listener:
        server = uvicorn.Server(_config(application(model, device=device)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield _address(listener)
        finally:
            server.should_exit = True
            thread.join(10)


def serve(model: str, *, port: int, device: str = "cpu", open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C, from an empty working folder. Raises `InputError` for a port that another program
    uses.
    """
    import uvicorn

    with _listen(port) as listener, tempfile.TemporaryDirectory(prefix="energycomp-studio-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        if model not in names("models") and os.path.isdir(model):  # noqa: PTH112
            model = os.path.abspath(model)  # noqa: PTH100 - the working folder changes
        guarded = application(model, device=device)
        os.chdir(folder)
        address = _address(listener)
        print(f"The studio is at {address} (Ctrl-C stops it)", file=sys.stderr, flush=True)  # noqa: T201
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(_config(guarded)).run(sockets=[listener])
        os.chdir("/")


def _config(guarded: Guard) -> Any:
    """Keeps open connections of pages from holding up the end of the server."""
    import uvicorn

    return uvicorn.Config(guarded, log_level="error", lifespan="on", timeout_graceful_shutdown=1)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # a browser that opens before the server is ready waits
    except OSError as error:
        listener.close()
        raise InputError(f"got --port {port}, which cannot be used ({error.strerror}); name another, or 0") from error
    return listener


def _address(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"
