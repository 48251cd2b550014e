"""Wrong data sets, models and configs by name: what a test does to a good one, and what the report must say of it.

Each case is a function of a `Workdir` that breaks something and returns further arguments of the command.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from tests.recipe.tiny_recipe import LETTERS

CASES: dict[str, tuple] = {}
NAN = float("nan")


@dataclass
class Workdir:
    """A folder with ``c.toml``, ``base``, ``models`` and ``data`` (one triplet in our layout), all to be broken."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "c.toml"

    def toml(self, text: str | bytes, encoding: str = "utf-8") -> None:
        """Replace the config."""
        self.config.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))

    def text(self) -> str:
        return self.config.read_text(encoding="utf-8")

    def entry(self, **changes) -> None:
        """Change keys of the triplet; None removes one."""
        file = self.path / "data" / "triplets.jsonl"
        entry = json.loads(file.read_text(encoding="utf-8")) | changes
        file.write_text(json.dumps({key: value for key, value in entry.items() if value is not None}))

    def authors(self, folder: Path) -> Path:
        """Put the authors' layout in place of ours."""
        shutil.rmtree(self.path / "data")
        shutil.copytree(folder, self.path / "data")
        return self.path / "data"

    def json(self, name: str, **changes) -> None:
        """Change keys of a JSON file of the base."""
        file = self.path / "base" / name
        file.parent.mkdir(exist_ok=True)
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, **changes}))

    def cut(self, name: str, keep: int = 300) -> None:
        """Cut a file off."""
        file = self.path / name
        file.write_bytes(file.read_bytes()[:keep])


def case(name: str, *expected: str):
    """Register a case under its name, with the sentences that its report must have."""

    def register(break_it):
        assert name not in CASES
        CASES[name] = (break_it, expected)
        return break_it

    return register


def by_override(name: str, override: str, *expected: str) -> None:
    case(name, *expected)(lambda work: ["--set", override])


def by_entry(name: str, changes: dict, *expected: str) -> None:
    case(name, *expected)(lambda work: work.entry(**changes))


def boxes_of(work: Workdir) -> list:
    return json.loads((work.path / "data" / "triplets.jsonl").read_text())["boxes"]


# The config


@case("no such config", "absent.toml: cannot be read", "Give the path of a TOML file")
def _(work):
    work.config.unlink()


case("a folder as config", "c.toml: cannot be read")(lambda work: work.config.unlink() or work.config.mkdir())
case("a config in UTF-16", "c.toml: expected text in UTF-8, got UTF-16")(lambda work: work.toml(work.text(), "utf-16"))
case("a config in cp1252", "another encoding (byte 0xe9 in line 1)")(
    lambda work: work.toml("# caf\xe9\n" + work.text(), "cp1252")
)
case("a config that is not TOML", "c.toml: not TOML")(lambda work: work.toml("relation = [\n"))
case("a Windows path as TOML understands it not", "not TOML", "a backslash begins an escape", "'single quotes'")(
    lambda work: work.toml(work.text().replace("[models]", '[models]\ntokenizer = "C:\\Users\\me"'))
)
case(
    "a Windows path with a new line in it",
    "models.tokenizer: expected a path",
    "with a control character in it",
    "'single quotes'",
)(lambda work: work.toml(work.text().replace("[models]", '[models]\ntokenizer = "C:\\new"')))
case("a table that is a value", "c.toml: lora: expected a table [lora], got 3")(
    lambda work: work.toml("lora = 3\n" + work.text().replace("[lora]", ""))
)
case("an empty config", "relation: missing", "data.folder: missing", "models.base: missing", "output.folder: missing")(
    lambda work: work.toml(b"")
)
case("a key that is not known", "train.stesp: unknown key. Did you mean train.steps?")(
    lambda work: ["--set", "train.stesp=3"]
)
by_override("an override without a value", "train.steps", "--set train.steps: expected table.key=value")
by_override("a key below a value", "relation.x=1", "--set relation.x=1: 'relation' is a value, not a table")
by_override("text for a number", "train.steps=many", "train.steps: expected a whole number, got 'many'")
by_override("half a step", "train.steps=1.5", "train.steps: expected a whole number, got 1.5")
by_override("true for a number", "train.batch_size=true", "train.batch_size: expected a whole number, got True")
by_override("an infinite learning rate", "train.lr=inf", "train.lr: expected a finite number, got inf")
by_override("a learning rate that is no number", "train.lr=nan", "train.lr: expected a finite number, got nan")
by_override("a negative weight", "loss.keypoint_weight=-1", "loss.keypoint_weight: expected at least 0, got -1")
by_override("a rank out of range", "lora.rank=0", "lora.rank: expected 1 to 256, got 0")
by_override("a word that is no choice", "data.fit=stretch", "data.fit: expected one of crop, pad, got 'stretch'")
by_override("a size that the VAE cannot halve", "data.image_px=100", "data.image_px: expected a multiple of 8")
by_override("micro-batches that do not fit", "train.micro_batch=3", "batch_size 4 is not a multiple of 3")
by_override("nothing but warm-up", "train.warmup_steps=4", "train.warmup_steps: 4 leaves nothing of 4 steps")
by_override("min-SNR for flow", "loss.prediction=flow", "loss.prediction: the base predicts epsilon, not flow")
by_override("an encoder without a model for it", "models.identity=", "models.clip_vision: has no use without")
by_override("a relation of spaces", "relation=' '", 'relation: expected the predicate, e.g. "hugging"')
by_override("a relation with a slash", "relation=hugging / kissing", "relation: it names the LoRA's file", "'/'")
by_override("a relation that climbs", "relation=../up", "relation: it names the LoRA's file", "without its folder")
by_override("a relation longer than a file name", f"relation={'x' * 300}", "at most 180 bytes, got 300")
by_override("a name that climbs", "output.name=../../evil", "output.name: expected a file's name without its folder")
by_override("a name for a device of Windows", "output.name=con", "'con' is no name that every system takes")
by_override("a name longer than a file name", f"output.name={'x' * 300}", "output.name", "at most 180 bytes, got 300")
by_override("a folder longer than a name", f"output.folder=out/{'x' * 300}", "output.folder: expected a path that file")
by_override("a data folder longer than a name", f"data.folder={'x' * 300}", "data.folder: expected a path that file")
by_override("no output folder", "output.folder=''", "output.folder: expected the run's folder")
by_override("a card that is not there", "train.device=cuda", 'train.device: "cuda" is asked for, this machine offers')
by_override("float16 without a card", "train.precision=float16", 'train.precision: "float16" needs a CUDA device')
by_override("an optimiser that is not installed", "train.optimizer=adamw_8bit", "needs the package bitsandbytes")


@case("an output folder that is a file", "out: ", " is a file; choose another folder")
def _(work):
    (work.path / "out").write_text("mine")


@case("a finished run", "finished runs are not overwritten")
def _(work):
    (work.path / "out").mkdir()
    (work.path / "out" / "hugging.safetensors").write_bytes(b"mine")


@case("an unfinished run", "holds an unfinished run. Add --resume")
def _(work):
    (work.path / "out").mkdir()
    (work.path / "out" / "checkpoint.safetensors").write_bytes(b"mine")


# The triplets


case("no triplets", "expected triplets.jsonl or prompts.json in this folder, found neither")(
    lambda work: (work.path / "data" / "triplets.jsonl").unlink()
)
case("an empty file of triplets", "no triplet in it")(
    lambda work: (work.path / "data" / "triplets.jsonl").write_text("\n") and None
)


def _lines(encode):
    def break_it(work):
        file = work.path / "data" / "triplets.jsonl"
        file.write_bytes(encode(file.read_text(encoding="utf-8")))

    return break_it


case("triplets in UTF-16", "triplets.jsonl: expected text in UTF-8, got UTF-16")(
    _lines(lambda text: text.encode("utf-16"))
)
case("triplets in cp1252", "triplets.jsonl: expected text in UTF-8, got another encoding")(
    _lines(lambda text: text.replace("A fox", "Un ren\xe9").encode("cp1252"))
)
case("a line that is not JSON", "triplets.jsonl, line 2: not JSON")(_lines(lambda text: (text + "\n{oops").encode()))
case("a line of thousands of brackets", "line 2: not JSON")(_lines(lambda text: (text + "\n" + "[" * 99999).encode()))
case("a line that is a list", "line 1: expected a JSON object, got [1]")(_lines(lambda text: b"[1]"))
by_entry("no target", {"target": None}, "'target' is missing; expected the file of the image")
by_entry("a number for a target", {"target": 3}, "'target': expected a text, got 3")
by_entry("a target longer than a name", {"target": "x" * 300}, "'target': expected a path that file systems take")
by_entry("a target that is not there", {"target": "0/absent.png"}, "absent.png: missing")
by_entry("an empty prompt", {"prompt": " "}, "'prompt': expected a sentence that says what the target shows, got ' '")
by_entry("a number for the relation", {"relation": 3}, "'relation': expected a text, got 3")
by_entry("a prompt without the relation", {"prompt": "Nothing.", "relation": "hugs"}, "no words for the relation found")
by_entry(
    "names that are no texts",
    {"names": [1, None]},
    "'names', number 1: expected a text, got 1",
    "'names', number 2: expected a text, got",
)
by_entry("names of nothing", {"names": ["", " "]}, "'names', number 1: expected the subjects' words in the prompt")
by_entry("names as an object", {"names": {"fox": 1}}, "'names': expected a list, got {'fox': 1}")
by_entry("one name for two subjects", {"names": ["fox"]}, "1 subjects are named (fox), got 2 concepts")
by_entry("a concept of null", {"concepts": ["0/concept0.png", [None]]}, "'concepts', number 2: expected a text")
by_entry("a mask of 1", {"masks": [1, 2]}, "'masks', number 1: expected a text, got 1")
by_entry("masks of one subject", {"masks": ["0/mask0.png"]}, "2 subjects are named (fox, bear), got 1 masks")
by_entry("neither masks nor boxes", {"masks": [], "boxes": None}, "expected 'boxes' or 'masks' of the subjects")
by_entry(
    "boxes in pixels",
    {"boxes": [[9, 19, 48, 86], [48, 28, 91, 86]]},
    "fox [9, 19, 48, 86]: expected fractions",
    "They look like pixels: divide x by the target's width",
    "bear [48, 28, 91, 86]",
)
by_entry("boxes a little outside", {"boxes": [[-0.1, 0, 0.5, 1], [0.5, 0, 1, 1]]}, "Clip them to the picture")
by_entry(
    "reversed boxes",
    {"boxes": [[0.5, 0.9, 0.1, 0.2], [0.5, 0.3, 0.95, 0.9]]},
    "fox [0.5, 0.9, 0.1, 0.2]: expected [x0, y0, x1, y1] with x0 < x1",
    "Write the left top corner first",
)
by_entry(
    "boxes of widths and heights",
    {"boxes": [[0.1, 0.2, 0.4, 0.7], [0.5, 0.3, 0.45, 0.6]]},
    "fox [0.1, 0.2, 0.4, 0.7]",
    "bear [0.5, 0.3, 0.45, 0.6]",
    "write [x, y, x + width, y + height]",
)
by_entry(
    "boxes of widths and heights that could be corners",
    {"boxes": [[0.1, 0.2, 0.4, 0.7], [0.5, 0.3, 0.9, 0.9]]},
    "fox is at [0.10, 0.20, 0.40, 0.70] by its box",
    "write [x, y, x + width, y + height]",
)
by_entry(
    "boxes of the wrong subjects",
    {"boxes": [[0.5, 0.3, 0.95, 0.9], [0.1, 0.2, 0.5, 0.9]]},
    "two different places. Correct one of them",
)
by_entry("boxes of NaN", {"boxes": [[NAN, 0, 0.5, 1], [0.5, 0, 1, 1]]}, "'boxes', number 1.1: expected a finite number")
by_entry("boxes of three numbers", {"boxes": [[0, 0, 1], [0, 0, 1]]}, "'boxes': expected 2 x 4, got 2 x 3")
by_entry("boxes of texts", {"boxes": [["0", "0", "1", "1"]] * 2}, "'boxes', number 1.1: expected a number, got '0'")
by_entry(
    "keypoints in pixels",
    {"keypoints_target": [[[40.0, 52.0, 1]] * 17] * 2},
    "'keypoints_target': skeleton 1, joint 1 at (40, 52): expected fractions of the target",
    "divide x by the picture's width",
)
by_entry(
    "a concept's keypoints in pixels",
    {"keypoints_concepts": [[[40.0, 52.0, 2]] * 17] * 2},
    "'keypoints_concepts': skeleton 1, joint 1 at (40, 52): expected fractions of its concept",
)
by_entry(
    "keypoints of NaN",
    {"keypoints_target": [[[NAN, 0.5, 1]] * 17] * 2},
    "'keypoints_target', number 1.1.1: expected a finite number, got nan",
    "31 more of this kind",
)
by_entry(
    "keypoints of a number too large",
    {"keypoints_target": [[[1e39, 0.5, 1]] * 17] * 2},
    "'keypoints_target': a number is too large",
)
by_entry("a visibility of 50", {"keypoints_target": [[[0.3, 0.5, 50]] * 17] * 2}, "expected a visibility of 0")
by_entry(
    "ragged keypoints",
    {"keypoints_target": [[[0.1, 0.1, 1]] * 17, [[0.1, 0.1, 1]]]},
    "'keypoints_target': expected lists of numbers of equal lengths",
)
by_entry("other joints in the concepts", {"keypoints_concepts": [[[0.1, 0.1, 1]] * 5] * 2}, "the concepts' 5")
by_entry(
    "joints that nobody sees",
    {"keypoints_target": [[[0.3, 0.5, 0]] * 17] * 2},
    "loss.keypoint_weight: no joint is visible in a target and its concept",
)
by_entry(
    "no keypoints",
    {"keypoints_target": None, "keypoints_concepts": None},
    "loss.keypoint_weight: the triplets have no keypoints",
)
by_entry(
    "a key spelled otherwise",
    {"keypoint_target": [], "keypoints_target": None, "keypoints_concepts": None},
    "'keypoint_target': unknown key. Did you mean keypoints_target?",
)


@case("a subject beside the square", "bear lies outside the square that data.fit", 'Use data.fit = "pad"')
def _(work):
    Image.new("RGB", (300, 96)).save(work.path / "data" / "0" / "target.png")
    work.entry(masks=[], boxes=[[0.4, 0, 0.6, 1], [0.8, 0, 1, 1]])


def _image(name: str, change):
    def break_it(work):
        change(work.path / "data" / "0" / name)

    return break_it


case("a target cut off", "target.png: not a whole picture")(
    _image("target.png", lambda path: path.write_bytes(path.read_bytes()[:-200]) and None)
)
case("a web page for a concept", "concept0.png: not a whole picture")(
    _image("concept0.png", lambda path: path.write_bytes(b"<!DOCTYPE html>") and None)
)
case("an animation for a concept", "concept0.png: expected a still picture, got 2 frames")(
    _image(
        "concept0.png",
        lambda path: Image.new("L", (64, 64)).save(path, save_all=True, append_images=[Image.new("L", (64, 64), 9)]),
    )
)
case("a concept of four pixels", "concept0.png: expected at least 16 pixels a side, got 4 x 4")(
    _image("concept0.png", lambda path: Image.new("L", (4, 4)).save(path))
)
case("a black mask", "mask0.png: the mask is empty")(
    _image("mask0.png", lambda path: Image.new("L", (96, 96)).save(path))
)
case("a mask of ones", "mask0.png: the mask is empty", "brightest pixel is 1 of 255")(
    _image("mask0.png", lambda path: Image.new("L", (96, 96), 1).save(path))
)
case("a mask of another size", "mask0.png: the mask is 90 x 96 pixels, its target 96 x 96")(
    _image("mask0.png", lambda path: Image.new("L", (90, 96), 255).save(path))
)


def by_authors(name: str, break_it, *expected: str) -> None:
    """A case of the authors' layout; `break_it` gets the folder and the parsed ``prompts.json``."""

    def run(work, folder):
        data = work.authors(folder)
        prompts = json.loads((data / "prompts.json").read_text())
        changed = break_it(data, prompts)
        if changed is not None:
            (data / "prompts.json").write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())

    run.authors = True
    case(name, *expected)(run)


by_authors(
    "prompts in cp1252",
    lambda data, prompts: '{"0": {"prompt": "René"}}'.encode("cp1252"),
    "prompts.json: expected text in UTF-8, got another encoding",
)
by_authors("prompts as a list", lambda data, prompts: [1], "prompts.json: expected a JSON object, got a list")
by_authors("prompts cut off", lambda data, prompts: b'{"0": {', "prompts.json: not JSON")
by_authors(
    "entities as an object",
    lambda data, prompts: {"0": {**prompts["0"], "entities": {"a": 1}}},
    "'entities': expected a list, got {'a': 1}",
)
by_authors(
    "seven entities",
    lambda data, prompts: {"0": {**prompts["0"], "entities": ["a"] * 7}},
    "'entities': expected at most 6, got 7",
)
by_authors(
    "a name longer than a folder's",
    lambda data, prompts: {"x" * 300: prompts["0"]},
    "expected a path that file systems take",
)
by_authors(
    "the authors' keypoints in pixels",
    lambda data, prompts: torch.save(
        torch.load(data / "videos/0/motion_keyposes.pth", weights_only=True) * 96, data / "videos/0/motion_keyposes.pth"
    ),
    "motion_keyposes.pth: skeleton 1, joint 1 at",
    "expected fractions of the target",
)
by_authors(
    "keypoints that are no tensor",
    lambda data, prompts: torch.save({"a": 1}, data / "videos/0/motion_keyposes.pth"),
    "expected keypoints of shape (subjects, 17, 2), got dict",
)
by_authors(
    "a concept without a file", lambda data, prompts: (data / "videos/0/concept1.png").unlink(), "concept1.png: missing"
)

# The models


by_override("no such base", "models.base=nowhere", "models.base: nowhere is neither a folder nor a file")
by_override("no such base at home", "models.base=~/nowhere", "nowhere is neither a folder nor a file")
case("a base without a VAE", "is not a whole diffusers folder of SDXL: vae missing")(
    lambda work: shutil.rmtree(work.path / "base" / "vae")
)
case("a UNet's config cut off", "unet/config.json: not JSON")(lambda work: work.cut("base/unet/config.json", 40))
case("a VAE's config cut off", "vae/config.json: not JSON")(lambda work: work.cut("base/vae/config.json", 40))
case("a config of the base in UTF-16", "text_encoder/config.json: expected text in UTF-8, got UTF-16")(
    lambda work: (work.path / "base/text_encoder/config.json").write_text("{}", encoding="utf-16") and None
)
case("a UNet of SD 1.5", "expected SDXL's architecture")(
    lambda work: work.json("unet/config.json", addition_embed_type=None, cross_attention_dim=768)
)
case("a UNet that cannot be built", "unet/config.json describes no UNet that diffusers can build")(
    lambda work: work.json("unet/config.json", block_out_channels=[7])
)
case("an inpainting UNet", "the UNet reads 9 channels, the VAE makes 4: an inpainting")(
    lambda work: work.json("unet/config.json", in_channels=9)
)
case("text encoders of another base", "its text encoders are 24 and 99 wide, its UNet reads 64")(
    lambda work: work.json("text_encoder_2/config.json", hidden_size=99)
)
case("weights cut off", "models.base: vae/diffusion_pytorch_model.safetensors", "truncated")(
    lambda work: work.cut("base/vae/diffusion_pytorch_model.safetensors")
)
case("a part without weights", "no weights in vae. Download the folder again")(
    lambda work: (work.path / "base/vae/diffusion_pytorch_model.safetensors").unlink()
)


def by_scheduler(name: str, settings: dict, *expected: str) -> None:
    settings = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", **settings}
    case(name, "scheduler_config.json", *expected)(
        lambda work: work.json("scheduler/scheduler_config.json", **settings)
    )


by_scheduler("500 timesteps", {"num_train_timesteps": 500}, "num_train_timesteps 500 is not supported")
by_scheduler("a cosine schedule", {"beta_schedule": "squaredcos_cap_v2"}, "got 'squaredcos_cap_v2'")
by_scheduler("a schedule nobody knows", {"beta_schedule": "spiral"}, "EulerDiscreteScheduler is not supported")
by_scheduler("EDM", {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler is not supported")
by_scheduler("a class nobody knows", {"_class_name": "Mine"}, "Mine is not supported")
by_scheduler("a prediction of the sample", {"prediction_type": "sample"}, "prediction_type 'sample' is not supported")
by_scheduler("zero terminal SNR with epsilon", {"rescale_betas_zero_snr": True}, "zero terminal SNR")
by_scheduler("too few trained betas", {"trained_betas": [0.1, 0.2]}, "expected 1000 betas")
case("a schedule cut off", "scheduler_config.json: not JSON")(
    lambda work: (
        work.json("scheduler/scheduler_config.json", a=1) or work.cut("base/scheduler/scheduler_config.json", 3)
    )
)
case("epsilon where the base has none at the end", "loss.prediction: the base has zero terminal SNR")(
    lambda work: (
        work.json(
            "scheduler/scheduler_config.json",
            _class_name="DDIMScheduler",
            beta_schedule="scaled_linear",
            rescale_betas_zero_snr=True,
            prediction_type="v_prediction",
        )
        or ["--set", "loss.prediction=epsilon"]
    )
)


case("min-SNR on a base that predicts flow", "loss.min_snr_gamma: min-SNR weights are for epsilon and v prediction")(
    lambda work: (
        work.json("scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
        or ["--set", "loss.min_snr_gamma=5"]
    )
)
case("no attention map as small as asked for", "loss.attention_max_cells: expected at least 16, the cells of the")(
    lambda work: ["--set", "loss.attention_weight=0.001", "--set", "loss.attention_max_cells=15"]
)


@case("no tokenizer", "models.tokenizer: no vocab.json and merges.txt in", "and no tokenizer.json")
def _(work):
    for name in ("vocab.json", "tokenizer.json"):
        (work.path / "base" / "tokenizer" / name).unlink(missing_ok=True)


case("a tokenizer cut off", "models.tokenizer: ", "cannot be read")(
    lambda work: work.cut("base/tokenizer/vocab.json", 9)
)


@case("a tokenizer of another base", "tokens, the base's text encoders know 59")
def _(work):
    words = {
        word: index
        for index, word in enumerate(
            ["!", *LETTERS, *(f"{a}{b}" for a in LETTERS for b in "abc"), "<|startoftext|>", "<|endoftext|>"]
        )
    }
    (work.path / "base" / "tokenizer" / "vocab.json").write_text(json.dumps(words))


by_override("no such identity model", "models.identity=absent.bin", "models.identity: absent.bin is not there")
case("an identity model cut off", "models.identity: identity.safetensors", "truncated")(
    lambda work: work.cut("models/identity.safetensors")
)


def by_file(name: str, key: str, file: str, *expected: str) -> None:
    case(name, *expected)(lambda work: ["--set", f"models.{key}={work.path / file}"])


by_file(
    "an encoder for an identity model",
    "identity",
    "models/clip_vision/model.safetensors",
    "models.identity: model.safetensors: expected an identity model",
)
by_file(
    "an identity model for an encoder",
    "clip_vision",
    "models/identity.safetensors",
    "models.clip_vision: identity.safetensors: expected a CLIP vision encoder",
)
by_file("a text encoder for an encoder", "clip_vision", "base/vae", "expected a CLIP vision encoder of transformers")
by_file("an empty folder for an encoder", "clip_vision", "data/0", "config.json: cannot be read")
case(
    "an encoder of another width", "models.clip_vision: ", "is 20 wide, the identity model reads encoders of width 48"
)(
    lambda work: (
        (work.path / "models/clip_vision/config.json").write_text(
            json.dumps({"model_type": "clip_vision_model", "hidden_size": 20})
        )
        and None
    )
)
case("an encoder cut off", "models.clip_vision: model.safetensors", "truncated")(
    lambda work: work.cut("models/clip_vision/model.safetensors")
)


def by_checkpoint(name: str, tensors: dict | bytes, *expected: str) -> None:
    """A base in one file."""

    def break_it(work):
        file = work.path / "base.safetensors"
        file.write_bytes(tensors) if isinstance(tensors, bytes) else save_file(tensors, file)
        return ["--set", f"models.base={file}"]

    case(name, "models.base: ", *expected)(break_it)


WHOLE = {
    f"{part}x": torch.zeros(1)
    for part in (
        "model.diffusion_model.",
        "first_stage_model.",
        "conditioner.embedders.0.transformer.",
        "conditioner.embedders.1.model.",
    )
}
by_checkpoint("a web page for a checkpoint", b"<!DOCTYPE html>", "expected a safetensors checkpoint, got another file")
by_checkpoint("a pickle for a checkpoint", b"\x80\x02}q\x00.", "pickles are not opened")
by_checkpoint("a checkpoint cut off", b"\x20" + bytes(7) + b'{"a"', "cannot be read", "truncated")
by_checkpoint(
    "a LoRA for a checkpoint",
    {"lora_unet_a.lora_down.weight": torch.zeros(1)},
    "expected a whole SDXL checkpoint",
    "By its keys it is a LoRA",
)
by_checkpoint(
    "an EDM checkpoint",
    {**WHOLE, "edm_mean": torch.zeros(1), "edm_std": torch.zeros(1)},
    "its key edm_mean says it was trained with EDM",
)
by_checkpoint(
    "an inpainting checkpoint",
    {**WHOLE, "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 9, 1, 1)},
    "its UNet reads 9 channels, not 4",
)
