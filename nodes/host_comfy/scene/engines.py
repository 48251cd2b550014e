"""The models that Apply Scene supports: their encoders and VAEs, reference labels and numbers of pictures.

A model is identified by its class in ComfyUI and by the config of ComfyUI's detection, never by its file's name.
Numbers of pictures are those that ComfyUI's own code or the makers state; see ``web/docs/RelateApplyScene.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True)
class Engine:
    """One family of models.

    Attributes:
        name: its word in the node's engine input.
        title: for messages.
        image_model: ComfyUI's word in the config of its network; None for a UNet.
        fits: further test on (class name, config); of one image_model the first that fits is the one.
        label: the name of reference {} by its makers or ComfyUI's template; None if it has no numbered references.
        most: pictures it reads.
        tokenizers: class names of its CLIP's tokenizer.
        encoder: its text encoder, and how it is loaded.
        vae: its VAE's file.
        node: the module and class of ComfyUI's that its wiring needs, beside those that every ComfyUI has.
        since: the ComfyUI version that brought it.
        advised: pictures its makers advise; None where they say nothing else than ``most``.
        batches: whether ComfyUI draws several pictures at once with references; of Z-Image Omni it does not.
    """

    name: str
    title: str
    image_model: str | None
    fits: Callable[[str, dict], bool]
    label: str | None
    most: int
    tokenizers: tuple[str, ...]
    encoder: str
    vae: str
    node: str
    since: str = "0.33"
    advised: int | None = None
    batches: bool = True


def _any(_class: str, _config: dict) -> bool:
    return True


_QWEN_25 = "Qwen2.5-VL as loaded with Load CLIP, type"
_QWEN_3 = "Qwen3-VL as loaded with Load CLIP, type"
_QWEN_TOKENS = ("QwenImageTokenizer",)
_IMAGE = "image {}"
FLUX2_DEV_CONTEXT = 15360  # Mistral's three layers of 5120; Klein's Qwen3 gives 7680 (4B) or 12288 (9B)
_NO_LIMIT = 10**6  # ComfyUI sets none

# In the order in which they are tried.
ENGINES = (
    Engine(
        "sdxl",
        "SDXL",
        None,
        lambda kind, _config: kind == "SDXL",
        None,
        _NO_LIMIT,
        ("SDXLTokenizer",),
        "SDXL's text encoders as loaded with Load Checkpoint",
        "the checkpoint's",
        "",
        "0.3.64",
    ),
    Engine(
        "longcat",
        "LongCat-Image-Edit",
        "flux",
        lambda kind, _config: kind == "LongCatImage",
        _IMAGE,
        1,
        ("LongCatImageTokenizer",),
        f"{_QWEN_25} longcat_image",
        "ae",
        "nodes_qwen.TextEncodeQwenImageEdit",
    ),
    Engine(
        "dreamo",
        "DreamO",
        "flux",
        _any,
        "[ref#{}]",
        9,
        ("FluxTokenizer", "SDXLTokenizer"),
        "CLIP-L and T5-XXL as loaded with Dual CLIP Loader, type flux",
        "ae",
        "nodes_sd3.EmptySD3LatentImage",
        "0.3.64",
    ),
    Engine(
        "kontext",
        "Flux Kontext",
        "flux",
        lambda _kind, config: config.get("in_channels") == 16 and not config.get("yak_mlp"),
        _IMAGE,
        _NO_LIMIT,
        ("FluxTokenizer",),
        "CLIP-L and T5-XXL as loaded with Dual CLIP Loader, type flux",
        "ae",
        "nodes_flux.FluxKontextImageScale",
        "0.3.64",
    ),
    Engine(
        "flux2",
        "Flux.2 dev",
        "flux2",
        lambda _kind, config: config.get("context_in_dim") == FLUX2_DEV_CONTEXT,
        _IMAGE,
        10,
        ("Flux2Tokenizer",),
        "Mistral 3 as loaded with Load CLIP, type flux2",
        "flux2-vae",
        "nodes_flux.EmptyFlux2LatentImage",
        advised=6,
    ),
    Engine(
        "flux2",
        "Flux.2 Klein",
        "flux2",
        _any,
        _IMAGE,
        10,
        ("KleinTokenizer",),
        "Qwen3 as loaded with Load CLIP, type flux2",
        "flux2-vae",
        "nodes_flux.EmptyFlux2LatentImage",
        advised=4,
    ),
    Engine(
        "qwen_edit",
        "Qwen-Image-Edit",
        "qwen_image",
        lambda _kind, config: not _layered(config),
        "Picture {}",
        3,
        _QWEN_TOKENS,
        f"{_QWEN_25} qwen_image",
        "qwen_image_vae",
        "nodes_qwen.TextEncodeQwenImageEditPlus",
        "0.3.64",
    ),
    Engine(
        "qwen_edit_first",
        "the first Qwen-Image-Edit",
        "qwen_image",
        lambda _kind, config: not _layered(config),
        _IMAGE,
        1,
        _QWEN_TOKENS,
        f"{_QWEN_25} qwen_image",
        "qwen_image_vae",
        "nodes_qwen.TextEncodeQwenImageEdit",
        "0.3.64",
    ),
    Engine(
        "krea2",
        "Krea 2",
        "krea2",
        _any,
        _IMAGE,
        2,
        ("Krea2Tokenizer",),
        f"{_QWEN_3} krea2",
        "qwen_image_vae",
        "nodes_flux.FluxKontextMultiReferenceLatentMethod",
    ),
    Engine(
        "mage",
        "Mage-Flow-Edit",
        "mage_flow",
        _any,
        "Image {}",
        16,
        ("MageFlowTokenizer",),
        f"{_QWEN_3} mage",
        "Mage-VAE",
        "nodes_mage.TextEncodeMageFlowEdit",
    ),
    Engine(
        "joyimage",
        "JoyImage-Edit",
        "joyimage",
        _any,
        _IMAGE,
        6,
        ("JoyImageTokenizer",),
        f"{_QWEN_3} joyimage",
        "wan_2.1_vae",
        "nodes_joyimage.TextEncodeJoyImageEdit",
    ),
    # Boogu's class is a subclass of OmniGen2's, so it is tried first
    Engine(
        "boogu",
        "Boogu-Image-Edit",
        "boogu",
        _any,
        _IMAGE,
        5,
        ("BooguTokenizer",),
        f"{_QWEN_3} boogu",
        "ae",
        "nodes_boogu.TextEncodeBooguEdit",
    ),
    Engine(
        "omnigen2",
        "OmniGen2",
        "omnigen2",
        _any,
        _IMAGE,
        5,
        ("Omnigen2Tokenizer",),
        "Qwen2.5-VL 3B as loaded with Load CLIP, type omnigen2",
        "ae",
        "nodes_edit_model.ReferenceLatent",
        "0.3.64",
    ),
    Engine(
        "z_image_omni",
        "Z-Image Omni",
        "lumina2",
        lambda _kind, config: "siglip_feat_dim" in config,
        _IMAGE,
        3,
        ("ZImageTokenizer",),
        "Qwen3 4B as loaded with Load CLIP, type lumina2",
        "ae",
        "nodes_zimage.TextEncodeZImageOmni",
        batches=False,
    ),
)
NAMES = tuple(dict.fromkeys(engine.name for engine in ENGINES))


def _layered(config: dict) -> bool:
    """Whether it is Qwen-Image-Layered, which draws layers and takes no references beside them."""
    return config.get("default_ref_method") == "negative_index" or bool(config.get("use_additional_t_cond"))
