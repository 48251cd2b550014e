"""python -m training.finetune on a tiny random SDXL: whole runs, and what they leave."""

import json
import logging

import pytest
import torch
from safetensors import safe_open

import training.finetune as finetune
from core.cross_attention_layers import SDXL
from core.relation.lora import load_relation
from tests.recipe.tiny_recipe import write_authors, write_config
from tests.recipe.tiny_runs import Crash, config_of
from training.common.cli import say
from training.config import load_config
from training.data import encoding_cache
from training.data.dataset import load_triplets
from training.data.encoding_cache import encode
from training.data.portions import portions
from training.host_diffusers import attach_relation, relation_parameters, unet_layout
from training.host_diffusers.checkpoint_configs import SDXL_UNET
from training.host_diffusers.frozen import open_frozen_models
from training.host_diffusers.unet import empty_unet
from training.prepare import convert

CPU = torch.device("cpu")


def test_the_whole_recipe(world, capsys, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(world)
    assert finetune.main([config]) == 0
    out = world / "out"
    said = capsys.readouterr().out
    assert "reordered [2, 1]" in caplog.text
    assert "step 4/4  loss" in said
    assert "read back: 32 of 32 pairs at 8 of 8 sites; diffusers reads 32 of 32 pairs" in said
    with safe_open(out / "hugging.safetensors", "pt") as file:
        metadata = file.metadata()
        assert len(list(file.keys())) == 96
    assert (metadata["format"], metadata["kind"], metadata["relation"], metadata["rank"], metadata["steps"]) == (
        "relate/1",
        "relation",
        "hugging",
        "4",
        "4",
    )
    assert json.loads(metadata["losses"]) == {"denoise": 1.0, "keypoint": 0.001}
    assert metadata["example_prompt"] == "A fox hugs a bear."
    assert len(metadata["dataset_sha256"]) == 64
    assert metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert (out / "history.csv").read_text().splitlines()[0] == "step,loss,denoise,keypoint,lr"
    assert len((out / "history.csv").read_text().splitlines()) == 5
    for name in ("samples.png", "loss.png", "settings.json", "samples/without-1.png", "samples/step-000004-1.png"):
        assert (out / name).is_file()
    assert list((out / "tensorboard").iterdir())
    assert not list(world.rglob("*.part*"))


def test_sdxl_has_the_published_number_of_parameters():
    unet = empty_unet(SDXL_UNET).requires_grad_(False)
    assert unet_layout(unet) == SDXL
    attach_relation(unet, 4, 4.0, torch.Generator())
    assert sum(parameter.numel() for parameter in relation_parameters(unet).values()) == 3_143_680
    assert len(relation_parameters(unet)) == 560


def test_micro_batches_add_up(world):
    histories = []
    for name, size in (("a", 4), ("b", 1)):
        config = config_of(world, f"{name}.toml", name, train=f"micro_batch = {size}")
        assert finetune.main([config, "--set", "samples.every=0"]) == 0
        rows = (world / name / "history.csv").read_text().splitlines()[1:]
        histories.append(torch.tensor([[float(cell) for cell in row.split(",")] for row in rows]))
    torch.testing.assert_close(histories[0], histories[1], atol=1e-4, rtol=1e-4)


def test_without_an_identity_model(world, capsys):
    config = write_config(world / "plain.toml", world, identity=False)
    assert finetune.main([str(config), "--set", "train.steps=2"]) == 0
    assert "none (relation on the plain base)" in capsys.readouterr().out
    unet = open_frozen_models(load_config(config).models).base.unet(torch.float32)
    lora = load_relation(world / "out" / "hugging.safetensors", unet_layout(unet))
    assert lora.report() == "32 of 32 pairs at 8 of 8 sites"
    assert lora.left_out == ()


def test_what_is_encoded_is_kept_by_content(world, capsys, caplog):
    config = config_of(world)
    settings = load_config(config)
    frozen = open_frozen_models(settings.models)

    def again(*overrides):
        changed = load_config(config, overrides)
        crops = encode(load_triplets(changed.data, ""), changed, frozen, CPU, torch.float32, say)
        return crops, capsys.readouterr().out

    first, said = again()
    assert "encoding 3 of 3 pictures" in said
    second, said = again("train.lr=1", "output.name=other")
    assert said == ""
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(second, name)), name
    damaged = sorted((world / "cache").glob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    third, said = again()
    assert "encoding 1 of 3 pictures" in said
    assert f"{damaged.name}: damaged" in caplog.text
    assert torch.equal(third.identity, first.identity)
    assert "encoding 3 of 3" in again("identity.local_grid=1")[1]  # another grid, other tokens
    assert "encoding 3 of 3" in again("data.fit=pad")[1], "targets are square; concepts may not be"
    assert "encoding 3 of 6" in again("data.crops=2")[1]


def test_every_portion_is_kept_before_the_next_is_encoded(world, capsys, monkeypatch):
    config = load_config(config_of(world))
    frozen, triplets = open_frozen_models(config.models), load_triplets(config.data, "")
    calls, honest = [], encoding_cache.encode_examples

    def second_fails(*inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 2:
            raise Crash
        return honest(*inputs)

    monkeypatch.setattr(encoding_cache, "portions", lambda examples: portions(examples, room=1))
    monkeypatch.setattr(encoding_cache, "encode_examples", second_fails)
    with pytest.raises(Crash):
        encode(triplets, config, frozen, CPU, torch.float32, say)
    assert "encoding 3 of 3" in capsys.readouterr().out
    by_portions = encode(triplets, config, frozen, CPU, torch.float32, say)
    assert "encoding 2 of 3" in capsys.readouterr().out and calls == [1, 1, 1, 1]
    monkeypatch.undo()
    elsewhere = load_config(config_of(world), ["output.cache=" + str(world / "another")])
    whole = encode(triplets, elsewhere, frozen, CPU, torch.float32, say)
    for name, tensor in vars(whole).items():
        assert torch.equal(tensor, getattr(by_portions, name)), name


def test_growing_boxes_adds_guesses_behind_the_crops(world, capsys, monkeypatch):
    """The tiny subjects only touch, so growth is stood in for by boxes that shrink."""
    asked = []

    def shrunk(boxes, share, words):
        asked.append((share, words))
        return boxes * 0.9

    monkeypatch.setattr(encoding_cache, "grown", shrunk)
    config = config_of(world)

    def encoded(*overrides):
        changed = load_config(config, overrides)
        frozen = open_frozen_models(changed.models)
        return encode(load_triplets(changed.data, ""), changed, frozen, CPU, torch.float32, say)

    plain, guesses = encoded(), encoded("identity.box_growth=0.3")
    assert "encoding 15 of 18 pictures" in capsys.readouterr().out, "the boxes as they are were encoded before"
    assert {share for share, _ in asked} == {0.3} and len(set(asked)) == 15
    assert len(plain) == 3 and len(guesses) == 18
    for name in ("boxes", "identity", "latents"):
        assert torch.equal(getattr(plain, name), getattr(guesses, name)[:3]), name
    for rows in (guesses.take(torch.arange(start, start + 3)) for start in range(3, 18, 3)):
        torch.testing.assert_close(rows.boxes, plain.boxes * 0.9)
        assert torch.equal(rows.latents, plain.latents) and torch.equal(rows.region, plain.region)
        assert not torch.equal(rows.identity, plain.identity)
    assert (
        len(
            encoded(
                "identity.box_growth=0.3", 'models.identity=""', 'models.clip_vision=""', 'models.local_clip_vision=""'
            )
        )
        == 3
    )


def test_a_dry_run_says_how_many_sets_of_boxes_each_crop_has(world, capsys):
    for growth, said in (
        ("0.3", "3 crops of 64 px, each with 6 sets of boxes, sha256"),
        ("0", "3 crops of 64 px, sha256"),
    ):
        assert finetune.main([str(config_of(world)), "--set", f"identity.box_growth={growth}", "--dry-run"]) == 0
        assert said in capsys.readouterr().out


def test_diffusers_pipeline_loads_the_file_with_equal_pictures(world):
    """`load_lora_weights` on a whole SDXL pipeline gives what was trained."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    config = config_of(world, train="warmup_steps = 0")
    assert finetune.main([config, "--set", "samples.every=0", "--set", "train.lr=0.05"]) == 0
    frozen = open_frozen_models(load_config(config).models)
    text = frozen.base.text(torch.float32)
    unet = frozen.base.unet(torch.float32)
    context, pooled = torch.randn(2, 77, 64), torch.randn(2, 40)
    arguments = (torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), context)
    conditions = {"text_embeds": pooled, "time_ids": torch.ones(2, 6)}
    plain = unet(*arguments, added_cond_kwargs=conditions).sample
    pipeline = StableDiffusionXLPipeline(frozen.base.vae(), text.clip_l, text.clip_g, None, None, unet, DDIMScheduler())
    pipeline.load_lora_weights(world / "out" / "hugging.safetensors")
    theirs = pipeline.unet(*arguments, added_cond_kwargs=conditions).sample
    ours = frozen.base.unet(torch.float32)
    attach_relation(ours, 4, 4.0, torch.Generator())
    lora = load_relation(world / "out" / "hugging.safetensors", unet_layout(ours))
    with torch.no_grad():
        for name, parameter in relation_parameters(ours).items():
            site, projection, role = (
                name.rsplit(".", 2)
                if ".to_out." not in name
                else (name.split(".to_out.0.")[0], "to_out.0", name.rsplit(".", 1)[1])
            )
            parameter.copy_(getattr(lora.pairs[site, projection], role))
    torch.testing.assert_close(ours(*arguments, added_cond_kwargs=conditions).sample, theirs, atol=1e-5, rtol=1e-5)
    assert (theirs - plain).abs().max() > 1e-3


def test_bfloat16_keeps_the_lora_in_float32(world):
    config = config_of(world, train='precision = "bfloat16"')
    assert finetune.main([config, "--set", "train.steps=2", "--set", "samples.every=0"]) == 0
    with safe_open(world / "out" / "hugging.safetensors", "pt") as file:
        tensors = [file.get_tensor(key) for key in file.keys() if not key.endswith("alpha")]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in tensors)


@pytest.mark.parametrize(("prediction", "schedule"), [("v", "linear"), ("epsilon", "cosine")])
def test_other_predictions_and_schedules_run(world, prediction, schedule):
    config = config_of(world, train=f'schedule = "{schedule}"', loss=f'prediction = "{prediction}"\nmin_snr_gamma = 5')
    assert finetune.main([config, "--set", "train.steps=1", "--set", "samples.every=0"]) == 0


def test_pictures_of_one_two_and_three_subjects_in_one_run(world, capsys):
    """Rows of a batch are padded; a padded subject has no box, no joint and no weight."""
    (world / "data").unlink()
    lines = []
    for count in (1, 2, 3):
        entries = [json.loads(line) for line in _ours(world / f"of{count}").splitlines()]
        entry = entries[0]
        for key in ("concepts", "masks", "boxes", "keypoints_target", "keypoints_concepts"):
            entry[key] = (entry[key] * 2)[:count]
        entry["names"] = ["fox", "bear", "owl"][:count]
        for key in ("concepts", "masks"):
            entry[key] = [f"../of{count}/{path}" for path in entry[key]]
        entry["target"] = f"../of{count}/{entry['target']}"
        lines.append(json.dumps(entry))
    (world / "data").mkdir()
    (world / "data" / "triplets.jsonl").write_text("\n".join(lines))
    assert finetune.main([config_of(world, data="match_skeletons = false")]) == 0
    config = load_config(config_of(world, data="match_skeletons = false"))
    crops = encode(load_triplets(config.data, ""), config, open_frozen_models(config.models), CPU, torch.float32, say)
    assert crops.present.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert crops.boxes[0, 1:].abs().sum() == 0
    assert crops.visible[0, 1:].sum() == 0


def _ours(folder):
    write_authors(folder.with_name(folder.name + "_authors"), count=1, swapped=())
    convert(folder.with_name(folder.name + "_authors"), folder)
    return (folder / "triplets.jsonl").read_text()
