"""Bad input through the nodes: one clear error each, in the user's words, and nothing of it executed."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.host import synthetic
from tests.host.api_graphs import node
from tests.host.pictures import photograph
from tests.host.studio import LEFT, RIGHT


@pytest.fixture(scope="module")
def scene(studio):
    return studio.scene({"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT})


@pytest.fixture(scope="module")
def identity(studio, scene):
    return studio.identity(scene)


def error(call, *arguments, **inputs) -> str:
    """The message of the one error a call must end in."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **inputs)
    return str(caught.value)


# Files of models/relate: (name, how it is written, words its error must have).


def _truncated(path):
    whole = synthetic.save_identity_bin(path, synthetic.SMALL).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _truncated_safetensors(path):
    whole = synthetic.save_identity_safetensors(path, synthetic.SMALL).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


class Bomb:
    """A pickle that runs code when it is opened carelessly."""

    def __reduce__(self):
        return os.mkdir, (os.environ["RELATE_TEST_BOMB"],)


def _malicious(path):
    torch.save({"image_proj": {}, "ms_adapter": Bomb(), "dummy_image_tokens": torch.zeros(1, 4, 64)}, path)


def _malicious_plain(path):
    path.write_bytes(pickle.dumps(Bomb()))


def _lora(path):
    save_file(synthetic.relation_lora("kohya", synthetic.SMALL), path)


def _checkpoint(path):
    save_file({f"model.diffusion_model.input_blocks.{i}.weight": torch.zeros(2) for i in range(9)}, path)


def _missing_parts(path):
    state = synthetic.identity_model(synthetic.SMALL)
    del state["image_proj"]["layers.1.0.norm1.bias"], state["ms_adapter"]["5.to_v_ip.weight"]
    state["image_proj"]["norm_out.weight"] = torch.zeros(3)
    torch.save(state, path)


FILES = {
    "truncated.bin": (_truncated, ["truncated.bin", "download it again"]),
    "truncated.safetensors": (_truncated_safetensors, ["truncated.safetensors", "download it again"]),
    "empty.bin": (lambda path: path.write_bytes(b""), ["empty.bin"]),
    "text.bin": (lambda path: path.write_text("<html>404</html>"), ["text.bin"]),
    "picture.safetensors": (lambda path: path.write_bytes(b"\x89PNG" * 100), ["picture.safetensors"]),
    "bomb.bin": (_malicious, ["bomb.bin", "run code"]),
    "bomb.ckpt": (_malicious_plain, ["bomb.ckpt"]),
    "lora.safetensors": (_lora, ["lora.safetensors", "a LoRA", "models/loras"]),
    "checkpoint.safetensors": (_checkpoint, ["checkpoint.safetensors", "models/checkpoints"]),
    "list.bin": (lambda path: torch.save([torch.zeros(1)], path), ["list.bin", "list"]),
    "parts.bin": (_missing_parts, ["parts.bin"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_identity_model(pack, base_directory, monkeypatch, tmp_path, name):
    write, words = FILES[name]
    monkeypatch.setenv("RELATE_TEST_BOMB", str(tmp_path / "exploded"))
    write(base_directory / "models" / "relate" / name)
    message = error(pack.run, "RelateIdentityModelLoader", model_name=name)
    assert all(word in message for word in words), message
    assert not (tmp_path / "exploded").exists()


def test_all_faults_of_a_file_are_in_one_message(pack, base_directory):
    _missing_parts(base_directory / "models" / "relate" / "parts.bin")
    message = error(pack.run, "RelateIdentityModelLoader", model_name="parts.bin")
    for key in ("layers.1.0.norm1.bias", "5.to_v_ip.weight", "norm_out.weight"):
        assert key in message, message


@pytest.mark.parametrize("kind", ["sd15", "flux", "sdxl"])
def test_an_identity_on_a_model_it_was_not_made_for(studio, identity, tiny, kind):
    """SD1.5, Flux, and an SDXL of another size than the identity model's."""
    with torch.inference_mode():
        model = tiny.model(kind)
    message = error(studio.apply, identity, model)
    assert "SDXL" in message or "cross-attentions" in message, message
    assert "8" in message or kind == "flux", message


@pytest.mark.parametrize("kind", ["sd15", "flux"])
def test_a_relation_on_a_model_of_another_family(pack, tiny, kind):
    with torch.inference_mode():
        model = tiny.model(kind)
    message = error(pack.run, "RelateRelationLoader", model=model, lora_name="relation_kohya.safetensors")
    assert "SDXL" in message or "context width" in message, message


def test_a_relation_for_another_base(pack, studio):
    message = error(pack.run, "RelateRelationLoader", model=studio.base.model, lora_name="another_base.safetensors")
    assert "another_base.safetensors" in message, message


def test_an_identity_model_given_as_a_relation(pack, studio, base_directory):
    synthetic.save_identity_safetensors(base_directory / "models" / "loras" / "wrong.safetensors", synthetic.SMALL)
    message = error(pack.run, "RelateRelationLoader", model=studio.base.model, lora_name="wrong.safetensors")
    assert "wrong.safetensors" in message, message


def test_a_clip_without_clip_l(studio, scene, tiny):
    """The refiner has only the big text encoder; SD1.5's single one is the very CLIP-L that is needed."""
    with torch.inference_mode():
        refiner, sd15 = tiny.clip("refiner"), tiny.clip("sd15")
    message = error(studio.identity, scene, clip=refiner)
    assert "CLIP-L" in message and "SDXL" in message, message
    assert torch.isfinite(studio.sample(studio.apply(studio.identity(scene, clip=sd15)), steps=1)).all()


def test_encoders_of_another_width(studio, scene, tiny):
    with torch.inference_mode():
        narrow = tiny.clip_vision(width=40)
    message = error(studio.identity, scene, clip_vision=narrow)
    assert "40" in message and str(synthetic.IMAGE) in message, message
    message = error(studio.identity, scene, local_clip_vision=narrow)
    assert "local_clip_vision" in message and "40" in message, message


def nan_photograph():
    image = photograph(20, 20)
    image[0, 3, 3, 1] = float("nan")
    return image


PICTURES = {
    "NaN": (nan_photograph(), ["NaN"]),
    "infinite": (photograph(20, 20) / 0, ["infinity"]),
    "no pictures": (torch.zeros(0, 20, 20, 3), ["0"]),
    "no pixels": (torch.zeros(1, 0, 20, 3), ["0"]),
    "five channels": (torch.zeros(1, 20, 20, 5), ["5"]),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_photograph_that_is_none(studio, kind):
    image, words = PICTURES[kind]
    message = error(studio.scene, {"name": "corgi", "image": image})
    assert "corgi" in message and all(word in message for word in words), message


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 3), (1, 1, 500, 3), (1, 500, 1, 3), (3, 30, 20, 4), (1, 20, 30, 1)], ids=str
)
def test_odd_photographs_are_read(studio, shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    latent = studio.sample(studio.apply(studio.identity(studio.scene({"name": "corgi", "image": image}))), steps=1)
    assert torch.isfinite(latent).all()


BOXES = {
    "reversed": ((0.7, 0.0, 0.3, 1.0), ["0.7", "0.3"]),
    "no area": ((0.2, 0.5, 0.8, 0.5), ["0.5"]),
    "outside": ((-0.5, 0.0, 1.5, 1.0), ["1.5", "-0.5"]),
    "NaN": ((0.0, float("nan"), 1.0, 1.0), ["nan"]),
    "two faults": ((0.9, 0.8, 0.1, 0.2), ["x0", "y0"]),
}


@pytest.mark.parametrize("kind", BOXES)
def test_a_box_that_is_none(studio, kind):
    box, words = BOXES[kind]
    message = error(studio.scene, {"name": "a blue corgi", "image": photograph(20, 20), "box": box})
    assert "a blue corgi" in message and all(word in message for word in words), message


def test_a_bad_box_is_refused_before_anything_runs(comfy_server, graph):
    graph["fox"]["inputs"].update(x0=0.9, x1=0.2)
    run = comfy_server.run(graph)
    assert run.status == "refused" and "fox" in run.error and "0.9" in run.error


def test_a_box_computed_by_another_node_is_checked_when_it_is_known(comfy_server, graph):
    graph["edge"] = node("RelateTestNumber", value=1.7)
    graph["fox"]["inputs"]["x1"] = ["edge", 0]
    run = comfy_server.run(graph)
    assert run.status == "error" and "fox" in run.error and "1.7" in run.error


def test_nothing_to_encode(pack, studio):
    empty = pack.module("core.scene").Scene()
    assert "Subject" in error(studio.identity, empty)


@pytest.mark.parametrize("name", ["", "   "])
def test_a_subject_without_a_name(studio, name):
    assert "name" in error(studio.scene, {"name": name, "image": photograph(20, 20)})


@pytest.mark.parametrize(
    "name", ["very " * 100 + "small corgi", "corgi \u732b \U0001f436", "(corgi:1.5)", "embedding:none"]
)
def test_long_and_strange_names(studio, name):
    scene = studio.scene({"name": name, "image": photograph(20, 20)})
    assert torch.isfinite(studio.sample(studio.apply(studio.identity(scene)), steps=1)).all()


def test_strength_3(studio, pack, identity):
    model, _ = pack.run(
        "RelateRelationLoader", model=studio.base.model, lora_name="small_relation_kohya.safetensors", strength=3.0
    )
    assert torch.isfinite(studio.sample(studio.apply(identity, model, weight=3.0))).all()


MASKS = {
    "empty": (torch.zeros(1, 20, 20), ["mask", "corgi"]),
    "of two pictures": (torch.ones(2, 20, 20), ["mask", "2"]),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_that_fits_no_subject(studio, kind):
    mask, words = MASKS[kind]
    message = error(studio.scene, {"name": "corgi", "image": photograph(20, 20), "mask": mask})
    assert all(word in message for word in words), message


def layout(pack, scene, bboxes, size=(200, 100)):
    return pack.run("RelateLayout", scene=scene, bboxes=bboxes, width=size[0], height=size[1])


@pytest.fixture(scope="module")
def two(studio):
    return studio.scene(
        {"name": "corgi", "image": photograph(20, 20, seed=1), "box": LEFT},
        {"name": "fox", "image": photograph(20, 20, seed=2), "box": RIGHT},
    )


FORMS = {
    "one frame": [[{"x": 0, "y": 0, "width": 100, "height": 100}, {"x": 100, "y": 0, "width": 100, "height": 50}]],
    "a list": [{"x": 0, "y": 0, "width": 100, "height": 100}, {"x": 100, "y": 0, "width": 100, "height": 50}],
    "text": '[{"x": 0, "y": 0, "width": 100, "height": 100}, {"x": 100, "y": 0, "width": 100, "height": 50}]',
    "elements": [{"type": "obj", "bbox": [0, 0, 1000, 500]}, {"type": "obj", "bbox": [0, 500, 500, 1000]}],
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_in_each_of_comfyuis_forms(pack, two, form):
    scene, preview = layout(pack, two, FORMS[form])
    first, second = (subject.box for subject in scene.subjects)
    assert (first.x0, first.y0, first.x1, first.y1) == (0, 0, 0.5, 1)
    assert (second.x0, second.y0, second.x1, second.y1) == (0.5, 0, 1, 0.5)
    assert preview.shape == (1, 100, 200, 3)
    assert two.subjects[1].box.y1 == 1.0  # the scene that was given is not changed


WRONG_BOXES = {
    "one too few": (FORMS["a list"][:1], ["2", "corgi", "fox", "1"]),
    "no JSON": ("left half", ["left half", "JSON"]),
    "no boxes": ("[]", ["2"]),
    "off the canvas": ([{"x": 0, "y": 0, "width": 500, "height": 50}] * 2, ["200 x 100", "box 1"]),
    "two faults": (
        [{"x": 0, "y": 0, "width": -5, "height": 50}, {"x": 0, "y": 0, "width": 5, "height": 0}],
        ["box 1", "box 2"],
    ),
    "other words": ([{"left": 0}] * 2, ["box 1", "left"]),
    "a number": (7, ["int"]),
}


@pytest.mark.parametrize("kind", WRONG_BOXES)
def test_boxes_that_are_none(pack, two, kind):
    given, words = WRONG_BOXES[kind]
    message = error(layout, pack, two, given)
    assert all(word in message for word in words), message
