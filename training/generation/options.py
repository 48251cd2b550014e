"""Options of `python -m training.generate`, and the engine they name."""

from __future__ import annotations

import argparse

from ..common import arguments as of_type
from ..common.cli import say
from ..common.comfyui_client import ComfyUIClient, Patience
from ..common.errors import UserErrors, all_or_faults
from .engines.comfyui import OPTIONS, ComfyUIEngine
from .recipes import RECIPES
from .request import EDIT, PANELS, TEXT, Engine
from .rounds import Order
from .scenes import read_groups, read_relation
from .wording import read_wording

DEFAULT_TEMPLATES = {TEXT: "klein_4b_text", EDIT: "klein_4b_edit", PANELS: "klein_4b_text"}
ENGINES = ("comfyui", "diffusers", "miniworld")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the order and of the engine."""
    add = parser.add_argument
    add("out", type=of_type.path, metavar="OUT", help="folder to write to; the same command goes on in it")
    add("--relation", required=True, help='what happens, as the sentence says it, e.g. "hugging"')
    add("--subjects", required=True, help='groups of subjects that take turns, e.g. "wolf, leopard; bear, tiger"')
    add("--count", type=of_type.whole(1, 10_000), default=5, help="triplets to be accepted")
    add("--recipe", choices=tuple(RECIPES), default="target-first", help="how pictures of one triplet are made")
    add("--engine", choices=ENGINES, default="comfyui", help="who draws")
    add("--server", default="127.0.0.1:8188", help="address of the ComfyUI")
    for role, option in OPTIONS.items():
        add(option, default=DEFAULT_TEMPLATES[role], metavar="FILE", help=_TEMPLATE_HELP[role])
    add("--wording", default="", metavar="FILE", help="prompts, places, poses; see training/generation/wording.toml")
    add("--tries", type=of_type.whole(1, 1000), default=6, help="attempts at each triplet")
    add("--seed", type=of_type.whole(0), default=0, help="of everything")
    add("--size", type=of_type.whole(64, 4096), help="pixels along a side; 1024, in the miniworld 128")
    add("--no-filters", action="store_true", help="accept whatever was drawn; the gates still measure")
    add("--run-seconds", type=of_type.positive, default=1800, help="longest time one picture may take in ComfyUI")


_TEMPLATE_HELP = {
    TEXT: "workflow in API format (diffusers: TOML) that draws from words; a file, or the name of a shipped one",
    EDIT: "the same from words and pictures",
    PANELS: "the same for several panels in one picture",
}


def open_engine(options: argparse.Namespace) -> Engine:
    """Make the engine that the options name; nothing is checked yet.

    Raises:
        UserErrors: an address or a file that cannot be one.
    """
    files = {role: getattr(options, option[2:].replace("-", "_")) for role, option in OPTIONS.items()}
    if options.engine == "miniworld":
        from .engines.miniworld import MiniworldEngine

        return MiniworldEngine()
    if options.engine == "diffusers":
        from .engines.diffusers import DiffusersEngine

        return DiffusersEngine(files, options.device)
    try:
        client = ComfyUIClient(options.server, Patience(run_seconds=options.run_seconds), say=say)
    except ValueError as error:
        raise UserErrors(f"--server: {error}") from error
    return ComfyUIEngine(client, files)


def read_order(options: argparse.Namespace, engine: Engine) -> Order:
    """Read relation, subjects and wording of an order.

    Raises:
        UserErrors: everything that is wrong with it.
    """
    relation, groups, words = all_or_faults(
        lambda: read_relation(options.relation),
        lambda: read_groups(options.subjects),
        lambda: read_wording(options.wording),
    )
    size = options.size or engine.size
    return Order(relation, groups, options.count, options.tries, options.seed, size, options.recipe, words)


def check_engine(engine: Engine, order: Order) -> None:
    """Check that the engine can draw this order.

    Raises:
        UserErrors: everything that keeps it from it.
    """
    needs = RECIPES[order.recipe].roles(max(map(len, order.groups)))
    engine.check(needs, order.relation, list(order.groups))
