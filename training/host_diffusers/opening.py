"""Opening models by name: what the libraries raise for one user's mistake becomes one ValueError."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

Model = TypeVar("Model")


def is_transformers(name: str) -> bool:
    """Tell whether a name is a folder of transformers or a hub's `owner/name`."""
    return Path(name).is_dir() or "/" in name


def opened(what: str, load: Callable[[], Model]) -> Model:
    """Return the model that `load` opens.

    Args:
        what: the option and its value, for the message, e.g. `--detector IDEA-Research/grounding-dino-tiny`.
        load: opens it; may raise what the libraries raise.

    Raises:
        ValueError: not there, not reachable, not such a model, a package is missing.
    """
    try:
        return load()
    except AssertionError as error:  # raised by a torch without CUDA
        raise ValueError(f"{what}: {error}. Choose another --device.") from error
    except ImportError as error:
        raise ValueError(f"{what}: {error}. Install it with: pip install -e '.[backbones]'") from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{what}: cannot be opened ({error})") from error


def check_config(option: str, name: str, kinds: Collection[str] = ()) -> str:
    """Look at a model's config alone; returns its type.

    Args:
        option: of the command, for messages.
        name: a folder of transformers or a hub's `owner/name`.
        kinds: types that will do; empty takes any.

    Raises:
        ValueError: no such model, or one of another type.
    """
    from transformers import AutoConfig

    kind = opened(f"{option} {name}", lambda: AutoConfig.from_pretrained(name).model_type)
    if kinds and kind not in kinds:
        raise ValueError(f"{option} {name}: a model of type '{kind}'; expected one of {', '.join(kinds)}.")
    return kind
