"""Bases and encoders as people have them on disk: what is read, what counts, and which noise they were trained with."""

import json
import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from tests.recipe.tiny_recipe import write_all
from training.diffusion.noise_schedule import NoiseSchedule
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.errors import ModelFileErrors
from training.host_diffusers.frozen import open_frozen_models
from training.host_diffusers.schedule import read_schedule, schedule_of_keys
from training.host_diffusers.tokenizer import find_tokenizer


class Paths:
    """The config's table of models."""

    tokenizer = ""

    def __init__(self, root, **changes):
        self.base = str(root / "base")
        self.identity = str(root / "models" / "identity.safetensors")
        self.clip_vision = str(root / "models" / "clip_vision")
        self.local_clip_vision = self.clip_vision
        vars(self).update(changes)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("good"))


@pytest.fixture
def root(good, tmp_path):
    for name in ("base", "models"):
        shutil.copytree(good / name, tmp_path / name)
    return tmp_path


def test_what_is_not_read_does_not_count(root):
    """Sub-folders, hidden files and notes in a model's folder change nothing; what is read does."""
    before = open_frozen_models(Paths(root)).fingerprint()
    for folder in (root / "models" / "clip_vision", root / "base", root / "base" / "unet"):
        for name in (
            ".cache/huggingface/x.json",
            ".git/config",
            "onnx/model.safetensors",
            ".gitattributes",
            "__MACOSX/._config.json",
            "._config.json",
            "README.md",
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")
    frozen = open_frozen_models(Paths(root))
    assert frozen.fingerprint() == before
    assert frozen.vision("clip_vision", torch.float32).config.hidden_size == 48
    assert frozen.base.unet(torch.float32).config.cross_attention_dim == 64


@pytest.mark.parametrize(
    "name",
    [
        "models/clip_vision/model.safetensors",
        "base/unet/diffusion_pytorch_model.safetensors",
        "models/identity.safetensors",
    ],
)
def test_weights_count(root, name):
    before = open_frozen_models(Paths(root)).fingerprint()
    tensors = load_file(root / name)
    with __import__("safetensors").safe_open(root / name, "pt") as file:
        metadata = file.metadata()
    save_file({key: tensor + 1 for key, tensor in tensors.items()}, root / name, metadata)
    assert open_frozen_models(Paths(root)).fingerprint() != before


def test_the_tokenizer_counts(root):
    """Other words, other embeddings: what was encoded with it must be encoded again."""
    before = open_frozen_models(Paths(root)).fingerprint()
    words = root / "base" / "tokenizer" / "vocab.json"
    vocabulary = json.loads(words.read_text())
    words.write_text(json.dumps(dict(zip(reversed(vocabulary), vocabulary.values()))))
    assert open_frozen_models(Paths(root)).fingerprint() != before


def test_a_tokenizer_of_one_file_gives_the_same_ids(root):
    folder = root / "base" / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    text = "a fox hugs a bear"
    before = open_base_model(root / "base").text(torch.float32).ids([text], None)
    shutil.rmtree(folder)
    tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    assert (folder / "tokenizer.json").is_file()
    assert find_tokenizer(str(folder)) == folder
    assert torch.equal(open_base_model(root / "base").text(torch.float32).ids([text], None), before)


@pytest.fixture
def scheduler(root):
    """Save a scheduler of diffusers and read its noise as training does."""

    def written(scheduler, **changes):
        scheduler.save_pretrained(root / "scheduler")
        file = root / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        return read_schedule(file)

    return written


@pytest.mark.parametrize(
    "kind",
    [
        diffusers.DDIMScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.EulerAncestralDiscreteScheduler,
        diffusers.UniPCMultistepScheduler,
    ],
)
def test_zero_terminal_snr_is_diffusers_own(scheduler, kind):
    theirs = kind(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    ours = scheduler(theirs)
    assert ours.prediction == "v" and ours.alphas[-1] < 1e-6
    torch.testing.assert_close(torch.tensor(ours.alphas), theirs.alphas_cumprod, atol=1e-7, rtol=0)


def test_trained_betas_and_missing_keys_are_diffusers_own(scheduler, root):
    betas = torch.linspace(0.001, 0.01, 1000).square().tolist()
    theirs = diffusers.DDIMScheduler(trained_betas=betas)
    torch.testing.assert_close(torch.tensor(scheduler(theirs).alphas), theirs.alphas_cumprod, atol=1e-6, rtol=0)
    (root / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    torch.testing.assert_close(
        torch.tensor(read_schedule(root / "scheduler" / "scheduler_config.json").alphas),
        diffusers.DDPMScheduler().alphas_cumprod,
        atol=1e-6,
        rtol=0,
    )


def test_the_usual_schedule_and_flow(scheduler, root):
    usual = diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert scheduler(usual) == NoiseSchedule.of_betas("epsilon") == read_schedule(root / "absent.json")
    assert scheduler(diffusers.FlowMatchEulerDiscreteScheduler()) == NoiseSchedule("flow")


def test_a_schedule_of_zero_terminal_snr_trains_and_samples_without_a_nan(scheduler):
    schedule = scheduler(
        diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
        )
    )
    latents, noise, last = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([999, 500])
    noisy = schedule.add_noise(latents, noise, last)
    torch.testing.assert_close(noisy[0], noise[0])
    target = schedule.target(latents, noise, last)
    torch.testing.assert_close(schedule.clean(noisy, target, last), latents, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(schedule.min_snr_weight(last, 5.0)).all()


def test_a_checkpoint_file_tells_its_schedule_by_keys():
    assert schedule_of_keys(set()) == schedule_of_keys({"ztsnr"}) == NoiseSchedule.of_betas("epsilon")
    assert schedule_of_keys({"v_pred"}) == NoiseSchedule.of_betas("v")
    zero = schedule_of_keys({"v_pred", "ztsnr"})
    assert zero.prediction == "v" and zero.alphas[-1] == 0
    for key in ("edm_mean", "edm_vpred.sigma_max"):
        with pytest.raises(ValueError, match=f"its key {key} says it was trained with EDM"):
            schedule_of_keys({key})


def test_every_fault_of_every_model_is_in_one_report(root):
    (root / "base" / "vae" / "config.json").write_text("{")
    (root / "base" / "scheduler").mkdir()
    (root / "base" / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "EDMEulerScheduler"}')
    (root / "base" / "tokenizer" / "vocab.json").write_text("{")
    (root / "models" / "clip_vision" / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ModelFileErrors) as report:
        open_frozen_models(Paths(root, identity="absent.bin"))
    assert [fault.split(":")[0] for fault in report.value.messages] == [
        "models.identity",
        "models.clip_vision",
        "models.local_clip_vision",
        "models.base",
        "models.base",
        "models.tokenizer",
    ]
