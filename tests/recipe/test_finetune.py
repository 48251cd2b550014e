"""python -m training.finetune on a tiny random SDXL: the whole recipe, its safety, its laws."""

import json
import logging
import shutil

import pytest
import torch
from safetensors import safe_open

import training.engine.run_dir
import training.finetune as finetune
from core.cross_attention_layers import SDXL
from core.relation.lora import load_relation
from tests.recipe.tiny_recipe import write_all, write_authors, write_config, write_tokenizer
from training.common.cli import say
from training.config import load_config
from training.data.dataset import load_triplets
from training.data.encoding_cache import encode
from training.diffusion.noise_schedule import NoiseSchedule
from training.engine import objective as relation
from training.engine.objective import RelationObjective
from training.host_diffusers import attach_relation, relation_parameters, set_relation, unet_layout
from training.host_diffusers.frozen import open_frozen_models
from training.host_diffusers.single_file import SDXL_CLIP_G, SDXL_CLIP_L, SDXL_UNET, SDXL_VAE
from training.host_diffusers.unet import empty_unet
from training.prepare import convert

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def world(tiny_root, tmp_path):
    """Its own output, the shared models, data and cache."""
    for name in ("base", "models", "data"):
        (tmp_path / name).symlink_to(tiny_root / name)
    return tmp_path


def config_of(world, name="c.toml", folder="out", cache=None, **tables):
    path = write_config(world / name, world, **tables)
    path.write_text(path.read_text().replace('/out"', f'/{folder}"'))
    return str(path)


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
        "relate/1", "relation", "hugging", "4", "4")
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


def test_a_finished_run_is_not_overwritten(world, capsys):
    config = config_of(world)
    assert finetune.main([config, "--set", "train.steps=1", "--set", "samples.every=0"]) == 0
    assert (world / "out" / "settings.json").is_file()
    assert not (world / "out" / "samples").exists()
    before = (world / "out" / "hugging.safetensors").read_bytes()
    for more in ([], ["--resume"], ["--dry-run"]):
        assert finetune.main([config, *more]) == 2
        assert "finished runs are not overwritten" in capsys.readouterr().err
    assert (world / "out" / "hugging.safetensors").read_bytes() == before


def test_dry_run_prints_the_plan_and_writes_nothing(world, capsys):
    assert finetune.main([config_of(world), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "16,384 parameters (rank 4), float32" in said
    assert "GiB a process" in said
    assert not (world / "out").exists()
    assert not (world / "cache").exists()


def test_sdxl_has_the_published_number_of_parameters():
    unet = empty_unet(SDXL_UNET).requires_grad_(False)
    assert unet_layout(unet) == SDXL
    attach_relation(unet, 4, 4.0, torch.Generator())
    assert sum(parameter.numel() for parameter in relation_parameters(unet).values()) == 3_143_680
    assert len(relation_parameters(unet)) == 560


def test_preview_of_the_data(world, tmp_path):
    assert finetune.main([config_of(world), "--preview-data", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").is_file()
    assert not (world / "out").exists()


class Crash(Exception):
    """Stands for whatever ends a process between two steps."""


def interrupt_at(monkeypatch, at, error):
    """The step number ``at`` ends in ``error``."""
    honest = finetune.one_step

    def one_step(model, optimizer, parameters, crops, identity, step, *rest):
        if step == at:
            raise error
        return honest(model, optimizer, parameters, crops, identity, step, *rest)

    monkeypatch.setattr(finetune, "one_step", one_step)
    return lambda: monkeypatch.setattr(finetune, "one_step", honest)


def test_a_resumed_run_ends_with_the_same_bytes(world, monkeypatch):
    whole, broken = config_of(world, "a.toml", "a"), config_of(world, "b.toml", "b")
    assert finetune.main([whole]) == 0
    mend = interrupt_at(monkeypatch, 3, Crash())
    with pytest.raises(Crash):
        finetune.main([broken])
    mend()
    (world / "b" / ".checkpoint.safetensors.x1.part").write_bytes(b"half a file")
    assert finetune.main([broken]) == 2  # not without being asked
    assert finetune.main([broken, "--resume"]) == 0
    for name in ("hugging.safetensors", "checkpoint.safetensors", "history.csv", "samples.png", "loss.png"):
        assert (world / "a" / name).read_bytes() == (world / "b" / name).read_bytes(), name
    assert not list((world / "b").glob(".*"))


def test_interrupted_before_the_export_it_is_exported_on_resume(world, monkeypatch):
    config = config_of(world)
    honest = relation.export

    def crash(*_):
        raise Crash

    monkeypatch.setattr(relation, "export", crash)
    with pytest.raises(Crash):
        finetune.main([config])
    monkeypatch.setattr(relation, "export", honest)
    assert finetune.main([config, "--resume"]) == 0
    assert (world / "out" / "hugging.safetensors").is_file()


def test_resuming_under_other_settings_is_refused(world, monkeypatch, capsys):
    config = config_of(world)
    interrupt_at(monkeypatch, 2, Crash())
    with pytest.raises(Crash):
        finetune.main([config])
    assert finetune.main([config, "--resume", "--set", "train.lr=1e-5"]) == 2
    assert "the settings changed since this run was started" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(world, monkeypatch, capsys):
    config = config_of(world)
    interrupt_at(monkeypatch, 3, KeyboardInterrupt())
    assert finetune.main([config]) == 130
    message = capsys.readouterr().err
    assert "The checkpoint of step 2 is whole; go on with: " in message
    assert message.endswith(f"python -m training.finetune {config} --resume\n")


def test_a_loss_that_is_not_a_number_keeps_the_last_checkpoint(world, monkeypatch, capsys):
    config = config_of(world, output="")
    honest = RelationObjective.forward
    calls = []

    def forward(self, *arguments):
        calls.append(1)
        losses = honest(self, *arguments)
        return {name: loss * float("nan") for name, loss in losses.items()} if len(calls) == 3 else losses

    monkeypatch.setattr(RelationObjective, "forward", forward)
    assert finetune.main([config]) == 1
    message = capsys.readouterr().err
    assert "The loss of step 3 is not a number" in message
    assert "The checkpoint of step 2 is whole" in message
    with safe_open(world / "out" / "checkpoint.safetensors", "pt") as file:
        assert file.metadata()["step"] == "2"
        assert all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys())
    assert not (world / "out" / "hugging.safetensors").exists()


def test_a_full_disk_on_the_way_keeps_the_last_checkpoint(world, monkeypatch, capsys):
    config = config_of(world)
    honest, calls = training.engine.run_dir.save, []

    def save(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        honest(path, *rest)

    monkeypatch.setattr(training.engine.run_dir, "save", save)
    assert finetune.main([config]) == 1
    assert "No space left on device. The checkpoint of step 2 is whole" in capsys.readouterr().err
    monkeypatch.setattr(training.engine.run_dir, "save", honest)
    assert finetune.main([config, "--resume"]) == 0


def test_a_full_disk_before_the_start_is_a_fault(world, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    assert finetune.main([config_of(world)]) == 2
    assert "0 MiB free on its disk" in capsys.readouterr().err
    assert not (world / "out").exists()


def test_faults_of_data_models_and_machine_come_together(world, capsys):
    config = config_of(world, train="micro_batch = 2")
    text = (world / "c.toml").read_text()
    (world / "c.toml").write_text(text.replace("/data\"", "/nowhere\"").replace("identity.safetensors", "absent.bin")
                                  .replace('device = "cpu"', 'device = "mps"'))
    assert finetune.main([config]) == 2
    message = capsys.readouterr().err
    for part in ("3 faults:", "expected triplets.jsonl or prompts.json", "absent.bin is not there", 'device: "mps"'):
        assert part in message
    assert not (world / "out").exists()


def test_a_wrong_base_is_named(world, tmp_path, capsys):
    config = config_of(world)
    shutil.copytree(world / "base", tmp_path / "sd15")
    wrong = tmp_path / "sd15" / "unet" / "config.json"
    settings = json.loads(wrong.read_text())
    wrong.write_text(json.dumps({**settings, "addition_embed_type": None, "cross_attention_dim": 768}))
    assert finetune.main([config, "--set", f"models.base={tmp_path / 'sd15'}"]) == 2
    assert "expected SDXL's architecture" in capsys.readouterr().err
    wrong.write_text(json.dumps({**settings, "cross_attention_dim": 32}))
    assert finetune.main([config, "--set", f"models.base={tmp_path / 'sd15'}"]) == 2
    assert "context width 64; the base" in capsys.readouterr().err
    assert finetune.main([config, "--set", "models.base=nowhere"]) == 2
    assert "neither a folder nor a file" in capsys.readouterr().err


@pytest.fixture
def parts(world):
    """A method attached to the tiny base, its encoded triplets and a fixed evaluation batch."""
    def build(**tables):
        config = load_config(config_of(world, **tables))
        frozen = open_frozen_models(config.models)
        crops = encode(load_triplets(config.data, config.relation), config, frozen, CPU, torch.float32, lambda _: None)
        unet = frozen.base.unet(torch.float32)
        objective = relation.attach(unet, frozen.base.schedule, config, frozen.identity_config is not None)
        recipe = finetune.gather(config, CPU, 1, False)
        return objective, crops, finetune.project_identity(recipe, crops, unet, CPU)

    return build


def evaluate(objective, crops, identity):
    """The losses on the same 12 noisy pictures."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(3).repeat_interleave(4)
    noise = torch.randn((12, *crops.latents.shape[1:]), generator=generator)
    timesteps = torch.tensor([20, 150, 300, 600]).repeat(3)
    return objective(crops.take(rows), identity.take(rows) if identity else None, timesteps, noise)


def test_only_the_lora_receives_gradients(parts):
    objective, crops, identity = parts(loss="attention_weight = 0.001\nattention_max_cells = 64")
    with torch.no_grad():
        for name, parameter in relation_parameters(objective.unet).items():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    losses = evaluate(objective, crops, identity)
    own = {id(parameter) for parameter in relation_parameters(objective.unet).values()}
    for name in ("denoise", "keypoint", "attention", "loss"):
        objective.zero_grad()
        losses[name].backward(retain_graph=True)
        for parameter in objective.parameters():
            if id(parameter) not in own:
                assert parameter.grad is None
        touched = [p for p in objective.parameters() if p.grad is not None and p.grad.any()]
        assert len(touched) == len(own) if name != "attention" else touched
    assert not crops.latents.requires_grad
    total = losses["denoise"] + 1e-3 * losses["keypoint"] + 1e-3 * losses["attention"]
    torch.testing.assert_close(losses["loss"], total)


def test_the_losses_are_those_of_a_computation_by_hand(parts):
    objective, crops, identity = parts()
    set_relation(objective.unet, True)
    losses = evaluate(objective, crops, identity)
    generator = torch.Generator().manual_seed(1)
    rows, noise = torch.arange(3).repeat_interleave(4), torch.randn((12, *crops.latents.shape[1:]), generator=generator)
    timesteps = torch.tensor([20, 150, 300, 600]).repeat(3)
    alphas = torch.tensor(NoiseSchedule.of_betas("epsilon").alphas)
    batch, denoise, keypoint = crops.take(rows), [], []
    for i in range(12):
        a = alphas[timesteps[i]]
        noisy = a.sqrt() * batch.latents[i] + (1 - a).sqrt() * noise[i]
        said = objective._predict(noisy[None], timesteps[i:i + 1], batch.take(slice(i, i + 1)),
                                  relation.CrossAttentionExtras(identity.take(rows[i:i + 1])))[0]
        denoise.append(((said - noise[i]) ** 2).mean())
        clean = (noisy - (1 - a).sqrt() * said) / a.sqrt()
        apart = []
        for subject in range(2):
            for joint in range(17):
                if batch.visible[i, subject, joint]:
                    x, y = (batch.keypoints_target[i, subject, joint] * 8).long().clamp(max=7).tolist()
                    u, v = (batch.keypoints_concepts[i, subject, joint] * 8).long().clamp(max=7).tolist()
                    apart.append(((clean[:, y, x] - batch.concept_latents[i, subject, :, v, u]) ** 2).sum())
        keypoint.append(torch.stack(apart).mean() if timesteps[i] <= 333 else torch.tensor(0.0))
    torch.testing.assert_close(losses["denoise"], torch.stack(denoise).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses["keypoint"], torch.stack(keypoint).mean(), atol=1e-4, rtol=1e-4)


def test_losses_fall_on_a_fixed_batch(parts):
    objective, crops, identity = parts(loss="keypoint_weight = 1e-2")
    parameters = list(relation_parameters(objective.unet).values())
    optimizer = torch.optim.AdamW(parameters, lr=2e-2)
    before = {name: loss.item() for name, loss in evaluate(objective, crops, identity).items()}
    for _ in range(15):
        evaluate(objective, crops, identity)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    after = {name: loss.item() for name, loss in evaluate(objective, crops, identity).items()}
    assert after["denoise"] < before["denoise"]
    assert after["keypoint"] < before["keypoint"]


def test_gradient_checkpointing_changes_no_gradient(parts):
    found = []
    for flag in ("false", "true"):
        objective, crops, identity = parts(train=f"gradient_checkpointing = {flag}",
                                           loss="attention_weight = 0.01\nattention_max_cells = 64")
        evaluate(objective, crops, identity)["loss"].backward()
        found.append([parameter.grad for parameter in relation_parameters(objective.unet).values()])
    for once, twice in zip(*found):
        torch.testing.assert_close(once, twice, atol=1e-6, rtol=1e-4)


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
    assert "encoding 3 of 6" in again("data.crops=2")[1]


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
            site, projection, role = name.rsplit(".", 2) if ".to_out." not in name else (
                name.split(".to_out.0.")[0], "to_out.0", name.rsplit(".", 1)[1])
            parameter.copy_(getattr(lora.pairs[site, projection], role))
    torch.testing.assert_close(ours(*arguments, added_cond_kwargs=conditions).sample, theirs, atol=1e-5, rtol=1e-5)
    assert (theirs - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("key", "wrong", "expected"), [
    ("clip_vision", "identity.safetensors", "models.clip_vision: identity.safetensors: expected a CLIP vision encoder"),
    ("identity", "clip_vision/model.safetensors", "models.identity: model.safetensors: expected an identity model"),
])
def test_a_wrong_file_for_a_model_is_named(world, capsys, key, wrong, expected):
    assert finetune.main([config_of(world), "--set", f"models.{key}={world / 'models' / wrong}"]) == 2
    assert expected in capsys.readouterr().err
    assert not (world / "out").exists()


def test_half_precision_needs_a_card(world, capsys):
    assert finetune.main([config_of(world), "--set", "train.precision=float16"]) == 2
    assert 'train.precision: "float16" needs a CUDA device' in capsys.readouterr().err


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


def test_the_released_losses_run_with_their_error(parts):
    objective, crops, identity = parts(loss='keypoint_form = "as_released"\nkeypoint_weight = 0.1')
    released = evaluate(objective, crops, identity)["keypoint"]
    objective, crops, identity = parts()
    assert not torch.isclose(released, evaluate(objective, crops, identity)["keypoint"] / 4)


def test_dry_run_of_full_size_sdxl(world, capsys):
    """Only configs are needed for a plan: nothing of 10 GB is read."""
    base = world / "sdxl"
    for part, config in (("unet", SDXL_UNET), ("vae", SDXL_VAE), ("text_encoder", SDXL_CLIP_L),
                         ("text_encoder_2", SDXL_CLIP_G)):
        (base / part).mkdir(parents=True)
        (base / part / "config.json").write_text(json.dumps(config))
    write_tokenizer(base / "tokenizer")
    path = write_config(world / "sdxl.toml", world, identity=False, train="gradient_checkpointing = true")
    path.write_text(path.read_text().replace("image_px = 64", "image_px = 1024"))
    changes = ["--set", f"models.base={base}", "--set", "train.micro_batch=1"]
    assert finetune.main([str(path), "--dry-run", *changes]) == 0
    said = capsys.readouterr().out
    assert "3,143,680 parameters (rank 4), float32" in said
    assert "(sdxl, epsilon prediction, 70 text cross-attentions)" in said
    assert "9.56 frozen UNet" in said  # 2,567,463,684 numbers in float32


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
