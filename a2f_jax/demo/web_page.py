"""The page of `a2f serve`, made with Gradio, and the server for it.

Nothing leaves the machine: the page loads nothing from elsewhere, which its security policy also lets the browser
enforce, and pictures are deleted when the server stops.
"""

import contextlib
import contextvars
import errno
import html
import logging
import os
import pathlib
import socket
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from a2f_jax.demo.studio import Studio, Upscaled
from a2f_jax.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only programs on the same machine can reach."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'"
)

_KEPT = (600, 24 * 3600)  # every ten minutes, files of more than a day are deleted
_LARGEST_FILE = 4 << 30  # bytes

_ABOUT = """
# A2F super-resolution

Drop a picture, and drag the line across the result: bicubic interpolation is on the left, the network on the right.
Pictures stay on the machine that runs this page.
"""

_STYLE = """
footer {display: none !important}
.gradio-container {width: 100% !important; max-width: 1280px !important; margin: 0 auto !important}
.error {color: var(--error-text-color)}
"""


def _describe(upscaled: Upscaled) -> str:
    (width, height), (wide, high) = upscaled.size, upscaled.result_size
    weights = pathlib.PurePath(upscaled.weights).name
    text = f"{width}×{height} → {wide}×{high} pixels in {upscaled.seconds:.1f} s, with {weights}."
    if upscaled.shown_size is None:
        return f"{text} The result is too large to be shown here: download it."
    if upscaled.shown_size != upscaled.result_size:
        text += " The middle is shown, {}×{} pixels; the download has everything.".format(*upscaled.shown_size)
    return text


def _status(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'


def _blocks(studio: Studio, describe_error: Callable[[UserError], str]) -> Any:
    import gradio as gr

    names = list(studio.models)
    scales = list(studio.models[names[0]])
    tracker = gr.Progress()
    stops: dict[str | None, threading.Event] = {}  # by the session of a browser
    last: dict[str | None, Upscaled] = {}

    def choices(name: str, current: int) -> Any:
        available = list(studio.models[name])
        value = current if current in available else available[-1]
        return gr.update(choices=[(f"×{scale}", scale) for scale in available], value=value)

    def ready(file: str | None) -> tuple[Any, ...]:
        nothing = gr.update(value=None, visible=False)
        return gr.update(interactive=file is not None), nothing, _status(""), nothing

    def idle() -> tuple[Any, Any]:
        return gr.update(interactive=True), gr.update(visible=False)

    def begin(request: gr.Request) -> tuple[Any, Any]:
        stops[request.session_hash] = threading.Event()  # already while the picture waits for others
        return gr.update(interactive=False), gr.update(visible=True)

    def discard(session: str | None) -> None:
        if upscaled := last.pop(session, None):
            studio.discard(upscaled)

    def upscale(
        file: str | None, name: str, scale: int, request: gr.Request, progress: Any = tracker
    ) -> tuple[Any, ...]:
        stopped = stops.setdefault(request.session_hash, threading.Event())
        discard(request.session_hash)
        context = contextvars.copy_context()  # tells Gradio which session the progress belongs to

        def show(fraction: float) -> None:  # called by other threads
            context.copy().run(progress, fraction, desc="upscaling" if fraction < 1 else "writing")

        progress(0, desc="reading")
        try:
            if stopped.is_set():
                raise UserError("stopped")
            if not file:
                raise UserError("choose a picture")
            upscaled = studio.upscale(
                pathlib.Path(file),
                name,
                scale,
                on_progress=show,
                stopped=stopped,
            )
        except UserError as error:
            nothing = gr.update(value=None, visible=False)
            return nothing, _status(describe_error(error), "error"), nothing, *idle()
        finally:
            stops.pop(request.session_hash, None)
        if stopped.is_set():  # while the last files were written, after which a page that was left fetches nothing
            studio.discard(upscaled)
            nothing = gr.update(value=None, visible=False)
            return nothing, _status("stopped", "error"), nothing, *idle()
        last[request.session_hash] = upscaled
        slider = (str(upscaled.before), str(upscaled.after)) if upscaled.before else None
        return (
            gr.update(value=slider, visible=slider is not None),
            _status(_describe(upscaled)),
            gr.update(value=str(upscaled.file), visible=True),
            *idle(),
        )

    def stop_work(request: gr.Request) -> None:
        if request.session_hash in stops:
            stops[request.session_hash].set()

    def leave(request: gr.Request) -> None:  # the page is closed or loaded again
        stop_work(request)
        discard(request.session_hash)

    gr.set_static_paths([studio.folder])  # served from there: copies would stay when the page is closed
    with gr.Blocks(title="A2F super-resolution", analytics_enabled=False, delete_cache=_KEPT) as blocks:
        gr.Markdown(_ABOUT)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(label="Picture", height=140, elem_id="picture")
                model = gr.Dropdown(names, value=names[0], label="Model", elem_id="model")
                scale = gr.Radio(
                    [(f"×{each}", each) for each in scales], value=scales[-1], label="Scale", elem_id="scale"
                )
                start = gr.Button("Upscale", variant="primary", interactive=False, elem_id="start")
                stop = gr.Button("Stop", visible=False, elem_id="stop")
            with gr.Column(scale=3, min_width=320):
                slider = gr.ImageSlider(
                    label="Bicubic interpolation | network",
                    type="filepath",
                    image_mode=None,
                    interactive=False,
                    visible=False,
                    buttons=["fullscreen"],
                    max_height=640,
                    elem_id="slider",
                )
                status = gr.HTML(
                    _status("The result appears here."),
                    elem_id="status",
                    padding=False,
                    min_height=56,
                    js_on_load="element.setAttribute('role', 'status')",  # screen readers say what appears
                )
                download = gr.DownloadButton("Download PNG", visible=False, elem_id="download")
        results = [slider, status, download]
        model.change(choices, [model, scale], scale, show_progress="hidden")
        file.change(ready, file, [start, *results], show_progress="hidden")
        started = start.click(begin, None, [start, stop], show_progress="hidden")
        # The buttons change together with the result: later, the picture might have been removed in the meantime.
        ended = started.then(upscale, [file, model, scale], [*results, start, stop], show_progress_on=status)
        ended.failure(idle, None, [start, stop], show_progress="hidden")
        stop.click(stop_work, None, None, queue=False, show_progress="hidden")
        blocks.unload(leave)
    return blocks


def _from_elsewhere(headers: Mapping[str, str]) -> bool:
    if site := headers.get("sec-fetch-site"):  # browsers send it over HTTPS and to this machine
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urllib.parse.urlsplit(origin).netloc != headers.get("host")


class _OwnPagesOnly:
    """Refuses what the pages of other sites send, and tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
            await send(message)

        if scope["method"] != "GET" and _from_elsewhere(Headers(scope=scope)):
            refused = PlainTextResponse("This page accepts what comes from itself only.", status_code=403)
            return await refused(scope, receive, send)
        await self._app(scope, receive, send_with_policy)


def application(studio: Studio, host: str, describe_error: Callable[[UserError], str] = str) -> Any:
    """Returns the page as an ASGI application.

    Args:
      studio: upscales the pictures.
      host: the address that the server listens on. For one of `LOOPBACK`, requests that name another host are refused,
        so that pages of other sites cannot reach this one by a host name of their own. What other sites send under
        their own names is refused in any case.
      describe_error: what to show of an error.
    """
    import fastapi
    import gradio as gr
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    app.add_middleware(_OwnPagesOnly)
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    system = ("system-ui", "sans-serif")
    theme = gr.themes.Default(font=system, font_mono=("ui-monospace", "monospace"), primary_hue="blue")
    blocks = _blocks(studio, describe_error).queue(default_concurrency_limit=1)
    # Only for what `launch` has started does Gradio check that files which are named as input were uploaded. Otherwise,
    # it would hand out every file that the server can read.
    blocks.has_launched = True
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=host,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=_LARGEST_FILE,
        theme=theme,
        css=_STYLE,
    )


@contextlib.contextmanager
def _private_uploads() -> Iterator[None]:
    # Gradio keeps what is uploaded.
    with tempfile.TemporaryDirectory(prefix="a2f-serve-") as folder:
        os.environ |= {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
        }
        ended = threading.Event()
        interval, age = _KEPT

        def clean() -> None:
            while not ended.wait(interval):
                delete_old_files(pathlib.Path(folder), age)

        cleaner = threading.Thread(target=clean)
        cleaner.start()
        try:
            yield
        finally:
            ended.set()
            cleaner.join()


def delete_old_files(folder: pathlib.Path, age: float) -> None:
    """Deletes the files in a folder, at any depth, that were last changed more than `age` seconds ago.

    Gradio deletes what it was sent, but not the uploads that were broken off.
    """
    for parent, _, names in os.walk(folder):  # which passes over folders that are deleted at the same time
        for path in (pathlib.Path(parent, name) for name in names):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > age:
                    path.unlink()


def listening_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on a host and a port; port 0 stands for any that is free.

    Raises:
      UserError: the port is in use or may not be used, or the host is not one of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        # Of a host that is unknown, not a name, or not this machine's, no port would do.
        unknown = isinstance(error, socket.gaierror | UnicodeError)
        address = unknown or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
        parameter = "host" if address else "port"
        raise UserError(
            f"cannot listen on {host}, port {port}: {reason}; choose another", parameter=parameter
        ) from error


def serve(
    studio: Studio,
    listener: socket.socket,
    host: str,
    *,
    describe_error: Callable[[UserError], str] = str,
    started: Callable[[], object] = lambda: None,
) -> None:
    """Serves the page until the process is interrupted.

    Args:
      studio: upscales the pictures.
      listener: as `listening_socket` returns it.
      host: the address that it listens on.
      describe_error: what to show of an error.
      started: called when the page can be opened.
    """
    with _private_uploads():
        import uvicorn

        class Announcing(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                started()

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                # What a browser waits for ends with an error then, of which nobody needs to hear.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                await super().shutdown(sockets)

        # The browser holds a connection open, which would delay the end.
        config = uvicorn.Config(
            application(studio, host, describe_error), log_level="warning", timeout_graceful_shutdown=1
        )
        Announcing(config).run([listener])
