"""`a2f serve`: a page in the browser that upscales pictures."""

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from a2f_jax.catalog import SCALES
from a2f_jax.cli import selection
from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_memory, add_pixel_limit, message_of
from a2f_jax.cli.process import terminable
from a2f_jax.errors import UserError

_PORT = 7860


def add(commands: Any) -> None:
    """Adds `a2f serve` to the command line."""
    parser = add_command(
        commands,
        "serve",
        run,
        "upscale pictures on a page in the browser",
        "  a2f serve --open\n"
        "  a2f serve --weights runs/sd_x4 carn-m-x2.safetensors\n"
        "  ssh -L 7860:localhost:7860 gpu-host a2f serve              use the GPU of another machine\n",
    )
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="PATH", help=f"other weights to choose from, each {WEIGHTS_HELP}"
    )
    parser.add_argument(
        "--port", type=int, default=_PORT, help=f"port of the page, or 0 for any that is free (default: {_PORT})"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, which only this machine can reach). With another, everyone who "
        "can reach it can use the page: there is no password",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_memory(parser)
    add_pixel_limit(parser)


def shipped_models() -> dict[str, dict[int, Sequence[str]]]:
    """Returns the weights that ship with the package by what the page calls them and by scale.

    For example, `"a2f-sd-x4-photo"` is the ×4 of `"a2f-sd-photo"`. `"automatic"` chooses for each picture, as
    `a2f upscale` does by default.
    """
    from a2f_jax.weights import shipped_weights

    models: dict[str, dict[int, Sequence[str]]] = {
        "automatic": {scale: selection.default_weights(scale) for scale in SCALES}
    }
    for name in shipped_weights():
        variant, _, rest = name.rpartition("-x")
        number, dash, suffix = rest.partition("-")
        models.setdefault(f"{variant}{dash}{suffix}", {})[int(number)] = [name]
    return models


def offered_models(weights: Sequence[str]) -> dict[str, Mapping[int, Sequence[str]]]:
    """Returns the models that the page offers, as `Studio` takes them: these weights first, then those of the package.

    Args:
      weights: files, folders or names, each as `load` takes it.

    Raises:
      UserError: the same weights are given twice, or cannot be loaded.
    """
    from a2f_jax.model import load_labeled_of_any_scale

    shipped = shipped_models()
    own = {
        f"{label} ({path})" if label in shipped else label: {model.scale: [path]}
        for (label, model), path in zip(load_labeled_of_any_scale(weights).items(), weights, strict=True)
    }
    return {**own, **shipped}


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Serves the page until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page requires an optional package: pip install 'a2f_jax[demo]'")
    if not 0 <= args.port < 2**16:
        raise UserError(
            f"{args.port} is not a port: choose one of 1024..65535, or 0 for any that is free", parameter="port"
        )

    from a2f_jax.compilation_cache import enable_compilation_cache
    from a2f_jax.demo.studio import Studio
    from a2f_jax.demo.web_page import LOOPBACK, listening_socket, serve
    from a2f_jax.images.limits import PIXEL_LIMIT
    from a2f_jax.progress import say

    with listening_socket(args.host, args.port) as listener:
        enable_compilation_cache()
        studio = Studio(offered_models(args.weights), memory=args.memory, pixel_limit=args.pixel_limit or PIXEL_LIMIT)
        port = listener.getsockname()[1]
        host = f"[{args.host}]" if ":" in args.host else args.host
        address = f"http://{'localhost' if args.host in LOOPBACK else host}:{port}"

        def started() -> None:
            print(f"{address} (Ctrl-C stops)", flush=True)
            if args.open:
                import webbrowser

                webbrowser.open(address)

        if args.host not in LOOPBACK:
            say(f"everyone who can reach {args.host}, port {port}, can use this page: there is no password")
        with terminable():
            serve(studio, listener, args.host, describe_error=message_of, started=started)
