"""Golden sizes, texts and positions of every engine's wiring, as measured on ComfyUI's own nodes (0.33.0 and 0.3.64).

Two photographs; the second is always 512 x 768. Sizes are in pixels, width x height, of what the VAE saw.
"""

import pytest
import torch

from tests.host.scene_studio import NAMES, PROMPT, photograph

VISION = "<|vision_start|><|vision_end|>"  # a picture writes no characters
EDIT = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain "
    "how the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
DESCRIBE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background:"
)

# engine, first photograph: size of both references, length of the CONDITIONING, where its pictures stand, and the
# length of the negative
SIZES = [
    ("qwen_edit", (1024, 1024), ((1024, 1024), (840, 1256)), 412, ((6, 202), (209, 396)), None),
    ("qwen_edit", (768, 1024), ((888, 1184), (840, 1256)), 408, ((6, 198), (205, 392)), None),
    ("qwen_edit", (640, 480), ((1184, 888), (840, 1256)), 408, ((6, 198), (205, 392)), None),
    ("qwen_edit", (3000, 2000), ((1256, 840), (840, 1256)), 403, ((6, 193), (200, 387)), None),
    ("qwen_edit", (1000, 777), ((1160, 904), (840, 1256)), 408, ((6, 198), (205, 392)), None),
    ("boogu", (1024, 1024), ((1024, 1024), (832, 1248)), 374, ((65, 209), (211, 361)), 66),
    ("boogu", (768, 1024), ((880, 1184), (832, 1248)), 370, ((65, 205), (207, 357)), 66),
    ("boogu", (640, 480), ((1184, 880), (832, 1248)), 370, ((65, 205), (207, 357)), 66),
    ("boogu", (3000, 2000), ((1248, 832), (832, 1248)), 380, ((65, 215), (217, 367)), 66),
    ("boogu", (1000, 777), ((1168, 896), (832, 1248)), 384, ((65, 219), (221, 371)), 66),
    ("joyimage", (1024, 1024), ((1024, 1024), (832, 1216)), 2033, ((3, 1027), (1029, 2017)), None),
    ("joyimage", (768, 1024), ((896, 1152), (832, 1216)), 2017, ((3, 1011), (1013, 2001)), None),
    ("joyimage", (640, 480), ((1152, 832), (832, 1216)), 1945, ((3, 939), (941, 1929)), None),
    ("joyimage", (3000, 2000), ((1216, 832), (832, 1216)), 1997, ((3, 991), (993, 1981)), None),
    ("joyimage", (1000, 777), ((1152, 896), (832, 1216)), 2017, ((3, 1011), (1013, 2001)), None),
    ("mage", (1024, 1024), ((1024, 1024), (1024, 1024)), 269, ((6, 150), (157, 253)), 260),
    ("mage", (768, 1024), ((1024, 1024), (1024, 1024)), 233, ((6, 114), (121, 217)), 224),
    ("mage", (640, 480), ((1024, 1024), (1024, 1024)), 233, ((6, 114), (121, 217)), 224),
    ("mage", (3000, 2000), ((1024, 1024), (1024, 1024)), 221, ((6, 102), (109, 205)), 212),
    ("mage", (1000, 777), ((1024, 1024), (1024, 1024)), 233, ((6, 114), (121, 217)), 224),
    ("kontext", (1024, 1024), ((1024, 1024), (832, 1248)), 256, (), 256),
    ("kontext", (768, 1024), ((880, 1184), (832, 1248)), 256, (), 256),
    ("kontext", (640, 480), ((1184, 880), (832, 1248)), 256, (), 256),
    ("kontext", (3000, 2000), ((1248, 832), (832, 1248)), 256, (), 256),
    ("kontext", (1000, 777), ((1184, 880), (832, 1248)), 256, (), 256),
    ("kontext", (2048, 1152), ((1392, 752), (832, 1248)), 256, (), 256),
    ("flux2", (768, 1024), ((880, 1184), (832, 1248)), 512, (), 512),
    ("flux2", (640, 480), ((1184, 880), (832, 1248)), 512, (), 512),
    ("omnigen2", (768, 1024), ((880, 1184), (832, 1248)), 35, (), None),
    ("krea2", (768, 1024), ((880, 1184), (832, 1248)), 15, (), None),
    ("z_image_omni", (640, 480), ((1184, 880), (832, 1248)), 17, (), None),
]
# engine: the decoded text (pictures left out, up to the padding), positions of the two names with 640 x 480
TEXTS = {
    "qwen_edit": (
        f"<|im_start|>system\n{EDIT}<|im_end|>\n<|im_start|>user\nPicture 1: {VISION}Picture 2: {VISION}"
        f"{PROMPT}<|im_end|>\n<|im_start|>assistant\n",
        ((394,), (399, 400, 401)),
    ),
    "boogu": (
        f"<|im_start|>system\n{EDIT}<|im_end|>\n<|im_start|>user\n{VISION}{VISION}{PROMPT}<|im_end|>\n",
        ((359,), (364, 365, 366)),
    ),
    "mage": (
        f"<|im_start|>system\n{EDIT}<|im_end|>\n<|im_start|>user\nImage 1: {VISION}Image 2: {VISION}{PROMPT}"
        "<|im_end|>\n<|im_start|>assistant\n",
        ((219,), (224, 225, 226)),
    ),
    "joyimage": (
        f"<|im_start|>system\n \\n{DESCRIBE}<|im_end|>\n<|im_start|>user\n{VISION}{VISION}{PROMPT}<|im_end|>\n"
        "<|im_start|>assistant\n",
        ((1931,), (1936, 1937, 1938)),
    ),
    "krea2": (
        f"<|im_start|>system\n{DESCRIBE}<|im_end|>\n<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n",
        ((1,), (6, 7, 8)),
    ),
    "omnigen2": (
        "<|im_start|>system\nYou are a helpful assistant that generates high-quality images based on user "
        f"instructions.<|im_end|>\n<|im_start|>user\n{PROMPT}<|im_end|>\n",
        ((24,), (29, 30, 31)),
    ),
    "flux2": (
        f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ((4,), (9, 10, 11)),
    ),
    "z_image_omni": (f"<|vision_end|>{PROMPT}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>", ((2,), (7, 8, 9))),
}


def applied(scenes, engine, first, strength=1.0):
    if engine not in scenes.native.NAMES:
        pytest.skip(f"this ComfyUI has no {engine}")
    scene = scenes.scene(photograph(*first), photograph(512, 768, seed=1))
    return scenes.apply(engine, scene, strength=strength)


def positions(scenes, conditioning):
    (found,) = scenes.pack.module("nodes.host_comfy.scene.recording_clip").text_positions(conditioning)
    return found


@pytest.mark.parametrize(("engine", "first", "sizes", "length", "images", "against"), SIZES)
def test_sizes(scenes, engine, first, sizes, length, images, against):
    made = applied(scenes, engine, first)
    assert tuple((each.shape[2], each.shape[1]) for each in made.references) == sizes
    factor = scenes.parts(engine).vae.factor
    latents = made.positive[0][1]["reference_latents"]
    assert [latent.shape[-2:] for latent in latents] == [(height // factor, width // factor) for width, height in sizes]
    assert made.positive[0][0].shape[1] == length and positions(scenes, made.positive).images == images
    assert against is None or made.negative[0][0].shape[1] == against


@pytest.mark.parametrize("engine", TEXTS)
def test_texts_and_places_of_names(scenes, engine):
    text, places = TEXTS[engine]
    found = positions(scenes, applied(scenes, engine, (640, 480)).positive)
    assert found.text.split("<|endoftext|>")[0] == text
    assert tuple(found.find(NAMES)) == places


def test_qwen_at_another_size(scenes):
    found = positions(scenes, applied(scenes, "qwen_edit", (1024, 1024)).positive)
    assert found.find(NAMES) == [(398,), (403, 404, 405)]


def test_longcat_loses_its_suffix_too(scenes):
    """ComfyUI's node alone, as it scales an unscaled photograph: latent 110 x 147, 1858 positions."""
    if "longcat" not in scenes.native.NAMES:
        pytest.skip("this ComfyUI has no longcat")
    parts = scenes.parts("longcat")
    clip = scenes.pack.module("nodes.host_comfy.scene.recording_clip").with_text_positions(parts.clip)
    (conditioning,) = scenes.core("nodes_qwen.TextEncodeQwenImageEdit", clip, PROMPT, parts.vae, photograph(640, 480))
    found = positions(scenes, conditioning)
    assert conditioning[0][1]["reference_latents"][0].shape[-2:] == (110, 147)
    assert conditioning[0][0].shape[1] == 1858 and found.images == ((1, 1345),)
    assert found.find(NAMES) == [(1347,), (1352, 1353, 1354)]


def test_the_first_qwen_edit(scenes):
    parts = scenes.parts("qwen_edit")
    scene = scenes.scene(photograph(1000, 777))
    made = scenes.apply("qwen_edit", scene, engine="qwen_edit_first", strength=1.0)
    assert made.positive[0][1]["reference_latents"][0].shape[-2:] == (112, 145)
    assert made.positive[0][0].shape[1] == 1361 and positions(scenes, made.positive).images == ((1, 1345),)
    (alone,) = scenes.core("nodes_qwen.TextEncodeQwenImageEdit", parts.clip, PROMPT, parts.vae, photograph(1000, 777))
    assert torch.equal(alone[0][0], made.positive[0][0])


def test_the_encoder_keeps_no_hook(scenes):
    applied(scenes, "qwen_edit", (640, 480))
    assert hooks(scenes) == 0


def test_the_encoder_keeps_no_hook_after_an_encode_that_raises(scenes, monkeypatch):
    language_model = scenes.parts("qwen_edit").clip.cond_stage_model.qwen25_7b.transformer
    monkeypatch.setattr(language_model.model, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        applied(scenes, "qwen_edit", (640, 480))
    assert hooks(scenes) == 0


def hooks(scenes) -> int:
    return len(scenes.parts("qwen_edit").clip.cond_stage_model.qwen25_7b.transformer._forward_pre_hooks)


def test_a_clone_of_the_recording_clip_records_and_the_clip_does_not(scenes):
    recording = scenes.pack.module("nodes.host_comfy.scene.recording_clip")
    clip = scenes.parts("omnigen2").clip
    clone = recording.with_text_positions(clip).clone()
    assert recording.text_positions(scenes.text(clone, PROMPT)) and isinstance(clone, type(clip))
    assert recording.text_positions(scenes.text(clip, PROMPT)) == []
    assert recording.with_text_positions(clone).clone().patcher is not clone.patcher
    assert torch.equal(scenes.text(clone, PROMPT)[0][0], scenes.text(clip, PROMPT)[0][0])


def test_names_survive_nodes_that_change_conditioning(scenes):
    recording = scenes.pack.module("nodes.host_comfy.scene.recording_clip")
    clip = recording.with_text_positions(scenes.parts("omnigen2").clip)
    (area,) = scenes.comfy.ConditioningSetArea().append(scenes.text(clip, PROMPT), 64, 64, 0, 0, 1.0)
    (both,) = scenes.comfy.ConditioningCombine().combine(area, scenes.text(clip, "A dog."))
    assert [found.find(["cat", "dog"]) for found in recording.text_positions(both)] == [[(24,), ()], [(), (24,)]]
