"""The keys of LoRA files: every spelling of a module, every part of an adapter, and where alpha stands.

    W' = W + alpha / r * up @ down                       LoRA (arXiv:2106.09685)
    W' = m * (W + alpha / r * up @ down) / ||...||       DoRA (arXiv:2402.09353): ``dora_scale``, peft's magnitudes

Published files spell a pair in diffusers', peft's, kohya's and LyCORIS' way. Beside pairs they hold magnitudes, middle
matrices, whole differences of weights and biases, and modules of the text encoders. A reader must know all of them: a
part that is left out without a word makes another picture than the file's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

BIAS = "bias"
SUFFIXES = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}  # ComfyUI's; else the role
# what no reader here applies, as it is called in messages
TEXT_ENCODERS = "text encoders (ComfyUI's Load LoRA applies them)"
BIASES = "biases that the pairs were trained with"
EMBEDDINGS = "textual inversions bundled with the LoRA (put them into models/embeddings)"
OWN_ADAPTERS = ("hada_", "lokr_", "oft_", "boft_", "glora_", "diff", "set_weight")  # they need no pair

_MODEL_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "unet.",
    "transformer.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_unet_",
    "lycoris_",
)
_TEXT_PREFIX = re.compile(
    r"(?:base_model\.model\.)?(?:lora_|lycoris_)?(?:prior_)?(?:te\d?|text_encoders?(?:_\d)?|text_model|clip_[lgh]|t5xxl)"
    r"[._]"
)
_ROLES = re.compile(
    r"(?:^|[._])(?:"
    r"lora(?:_linear_layer)?\.(?P<dotted>down|up)\.weight"  # diffusers
    r"|lora_(?P<kohya>down|up)(?:\.weight)?"  # kohya, LyCORIS
    r"|lora_(?P<peft>A|B)(?:\.(?!weight|bias)\w+)?(?:\.weight)?"  # peft, with or without an adapter's name
    r"|lora_(?:down|up|A|B)(?:\.\w+)?(?P<bias>\.bias)"
    r"|lora_(?P<mid>mid)\.weight"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.(?!weight)\w+)?(?:\.weight)?"
    r"|(?:lora\.)?(?P<plain>alpha|dora_scale|diff_b|diff|w_norm|b_norm|set_weight|reshape_weight|bias"
    r"|hada_\w+|lokr_\w+|oft_\w+|boft_\w+|[ab][12]\.weight)"
    r")$"
)
_OLD_PROCESSOR = re.compile(r"\.processor\.(to_\w+?)_lora\.(down|up)\.weight$")


@dataclass(frozen=True)
class LoraKey:
    """One key of a LoRA file.

    Attributes:
        module: the module it belongs to, dots as underscores, without the file's prefix.
        role: down, up, alpha, mid, magnitude, dora_scale, bias, or the suffix of another kind of adapter.
        spelled: the module as the file spells it, prefix and dots included.
        text_encoder: it belongs to a text encoder.
    """

    module: str
    role: str
    spelled: str
    text_encoder: bool = False


def split_key(key: str) -> LoraKey | None:
    """Read one key; None if it is no key of any LoRA."""
    key = _OLD_PROCESSOR.sub(r".\1.lora.\2.weight", key)
    match = _ROLES.search(key)
    if match is None:
        return None
    spelled = module = key[: match.start()]
    if not module:
        return None
    module = bare_name(module)
    return LoraKey(
        module.replace(".processor.", ".").replace(".", "_"), _role(match), spelled, _TEXT_PREFIX.match(key) is not None
    )


def bare_name(module: str) -> str:
    """Return a module without the prefixes that tools put before it, e.g. "unet.base_model.model."."""
    while (prefix := next((each for each in _MODEL_PREFIXES if module.startswith(each)), None)) is not None:
        module = module[len(prefix) :]
    return module


def _role(match: re.Match) -> str:
    if match["bias"] or match["plain"] == "bias":
        return BIAS
    if match["magnitude"]:
        return "magnitude"
    pair = match["dotted"] or match["kohya"] or {"A": "down", "B": "up"}.get(match["peft"])
    return pair or match["mid"] or match["plain"]


@dataclass(frozen=True)
class Alphas:
    """Alpha as a file gives it outside its tensors.

    Attributes:
        default: of all modules, or None.
        patterns: by the end of the module's dotted name, as peft's ``alpha_pattern``.
        root: alpha is divided by the root of the rank (rank-stabilised LoRA, arXiv:2312.03732).
        source: where it stands, for messages.
    """

    default: float | None = None
    patterns: Mapping[str, float] | None = None
    root: bool = False
    source: str = ""

    def of(self, module: str, rank: int) -> float:
        """Alpha of a module without one of its own, so that alpha / rank is its scale; else the rank.

        Args:
            module: its name in the file.
        """
        alpha, name = self.default, module.replace(".", "_")
        for pattern, value in (self.patterns or {}).items():
            # peft's patterns are regular expressions; those of a file are only read as names
            ending = pattern.strip("^$").replace("\\", "").replace(".", "_")
            if ending and (name == ending or name.endswith(f"_{ending}")):
                alpha = value
        if alpha is None:
            return float(rank)
        return alpha * math.sqrt(rank) if self.root else alpha


def read_alphas(path: Path, metadata: Mapping[str, str]) -> Alphas:
    """Read alpha where a file has no ``.alpha`` keys: its metadata, or peft's ``adapter_config.json`` beside it.

    Args:
        path: of the file; a folder that several model files share says nothing of any one of them.
        metadata: its own.
    """
    config = _json(metadata.get("lora_adapter_metadata"))  # diffusers: "unet.r", "unet.lora_alpha", ...
    if config:
        names = sorted(
            {key.rpartition(".")[0] for key in config if key.endswith("lora_alpha")},
            key=lambda name: name.startswith("text_encoder"),
        )
        prefix = f"{names[0]}." if names and names[0] else ""
        return _of_peft({key.removeprefix(prefix): value for key, value in config.items()}, "its metadata")
    for name in ("ss_network_alpha", "lora_alpha", "network_alpha"):
        alpha = _number(metadata.get(name))
        if alpha:
            return Alphas(alpha, source=f"its metadata ({name})")
    beside = path.parent / "adapter_config.json"
    if beside.is_file() and (path.stem.startswith("adapter_model") or _is_alone(path)):
        return _of_peft(_json(beside.read_text(encoding="utf-8-sig", errors="replace")), beside.name)
    return Alphas()


def _of_peft(config: Mapping, source: str) -> Alphas:
    patterns = config.get("alpha_pattern")
    patterns = {
        name: number
        for name, value in (patterns if isinstance(patterns, dict) else {}).items()
        if (number := _number(value)) is not None
    }
    return Alphas(_number(config.get("lora_alpha")), patterns, config.get("use_rslora") is True, source)


def _is_alone(path: Path) -> bool:
    """Whether no other model file is in the folder."""
    return not any(
        other != path and other.is_file() and other.suffix.lower() in (".safetensors", ".bin", ".pt", ".sft")
        for other in path.parent.iterdir()
    )


def _json(text: str | None) -> dict:
    """Parse a JSON object; anything else gives an empty dictionary."""
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """Return a finite number, written as one or as text; None for anything else ("None", "nan", a list)."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def is_embedding(key: str) -> bool:
    """Whether a key is a textual inversion that a LoRA brings along."""
    return key.startswith("bundle_emb.")


def first_names(names: Iterable[str], limit: int = 3) -> str:
    """Join the first few of many names, and say how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
