"""The diffusers engine on tiny pipelines saved as published ones are: two kinds, each called as its signature says."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    Flux2KleinPipeline,
    QwenImageEditPlusPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.unit.training.generation.orders import accepting, order_of
from training.common.errors import UserErrors
from training.common.toml_config import read_settings
from training.generation.engines.comfyui import SHIPPED
from training.generation.engines.diffusers import DiffusersEngine, PipelineSettings
from training.generation.picture_store import PictureStore
from training.generation.recipes import RECIPES
from training.generation.request import EDIT, PANELS, TEXT
from training.generation.rounds import run_rounds
from training.host_diffusers.drawing_pipelines import argument_faults
from training.host_diffusers.miniworld.architectures import FOLDER

PUBLISHED = {
    "klein_4b_text": Flux2KleinPipeline,
    "klein_4b_edit": Flux2KleinPipeline,
    "qwen_edit_2511": QwenImageEditPlusPipeline,
    "z_image_turbo_text": ZImagePipeline,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A pipeline that draws and one that edits, of 16-channel networks."""
    folder = tmp_path_factory.mktemp("pipelines")
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer", model_max_length=16)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    for name, kind, channels in (
        ("draws", StableDiffusionPipeline, 4),
        ("edits", StableDiffusionInstructPix2PixPipeline, 8),
    ):
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=channels,
            out_channels=4,
            block_out_channels=(16,),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=16,
            attention_head_dim=8,
        )
        kind(vae, text, tokenizer, unet, DDIMScheduler(), None, None, requires_safety_checker=False).save_pretrained(
            folder / name
        )
    return folder


def engine_of(folder, models, **changes):
    texts = {
        TEXT: f'model = "{models.as_posix()}/draws"\ndtype = "float32"\n[arguments]\nnum_inference_steps = 2\n',
        EDIT: f'model = "{models.as_posix()}/edits"\npictures = "one"\ndtype = "float32"\nlicence = "MIT"\n'
        "[arguments]\nnum_inference_steps = 2\nimage_guidance_scale = 1.2\n",
        **changes,
    }
    for role, text in texts.items():
        (folder / f"{role}.toml").write_text(text, encoding="utf-8")
    return DiffusersEngine({role: str(folder / f"{role}.toml") for role in (TEXT, EDIT, PANELS)}, "cpu")


def test_pictures_are_drawn_and_edited_and_kept(models, tmp_path):
    engine, order = engine_of(tmp_path, models), order_of(size=32, tries=1)
    engine.check(RECIPES["target-first"].roles(2), "hugging", list(order.groups))
    store = PictureStore(tmp_path / "drawn", engine, print)
    assert run_rounds(order, engine, accepting, tmp_path / "out", store, print).accepted == {1}
    raw = tmp_path / "out" / "raw" / "01-1"
    pictures = [Image.open(raw / name) for name in ("target.png", "wolf.png", "owl.png")]
    assert [picture.size for picture in pictures] == [(32, 32)] * 3
    assert len({picture.tobytes() for picture in pictures}) == 3
    assert engine.facts["licence"] == "MIT; not known"
    again = PictureStore(tmp_path / "drawn", engine_of(tmp_path, models), print)
    again.engine.check(RECIPES["target-first"].roles(2), "hugging", list(order.groups))
    run_rounds(order, again.engine, accepting, tmp_path / "out2", again, print)
    assert (again.drawn, again.kept) == (0, 3)


def test_every_fault_of_the_templates_comes_at_once(models, tmp_path):
    text = f'model = "{models.as_posix()}/draws"\n[arguments]\nsteps = 2\nwidth = 64\nprompt = "a fox"\n'
    edit = f'model = "{models.as_posix()}/draws"\npictures = "one"\n'
    with pytest.raises(UserErrors) as caught:
        engine_of(tmp_path, models, **{TEXT: text, EDIT: edit}).check({TEXT: 0, EDIT: 2}, "hugging", [])
    for part in (
        "steps: StableDiffusionPipeline has no such argument; it takes prompt, height",
        "width: is set for every picture",
        "prompt: is set for every picture",
        'pictures = "one", and this recipe brings 2',
        "reads no pictures",
    ):
        assert part in str(caught.value)
    wrong = {TEXT: 'model = "nowhere/at-all/x"\n', EDIT: "model = 3\n"}
    with pytest.raises(UserErrors) as caught:
        engine_of(tmp_path, models, **wrong).check({TEXT: 0, EDIT: 1}, "hugging", [])
    assert "--target-template: nowhere/at-all/x: cannot be opened" in str(caught.value)
    assert "model: expected a string, got 3" in str(caught.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_templates_say_what_their_pipelines_take(name):
    path = SHIPPED / f"{name}.toml"
    own = read_settings(PipelineSettings, path, path.read_text(encoding="utf-8"), (), lambda settings: [])
    assert argument_faults(PUBLISHED[name], own.arguments, int(name != "z_image_turbo_text" and "edit" in name)) == []
    assert own.licence == "Apache-2.0"
