"""The models of transformers as an annotation's: tiny random checkpoints, opened as users open them."""

import json
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe import tiny_vision
from training.annotate import annotate, main
from training.annotation.backends import opened_part
from training.annotation.models import backends, fingerprint, licence_of
from training.annotation.options import AnnotateOptions
from training.common.errors import UserErrors
from training.data.skeletons import AP10K, COCO, SKELETONS
from training.host_diffusers.pose import check_pose, open_pose
from training.host_diffusers.pose_conversion import EXPERTS, build, split
from training.host_diffusers.segmenters import BoxSegmenter, open_segmenter

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
BOXES = [(0.1, 0.1, 0.5, 0.6), (0.2, 0.0, 0.9, 0.9)]
PERSON, ANIMAL = SKELETONS[COCO], SKELETONS[AP10K]


def opened(folder, skeleton=PERSON):
    return open_pose("--pose", str(folder), "cpu", skeleton.joints[0], skeleton.mirror)


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return opened(tiny_vision.vitpose(tmp_path_factory.mktemp("vitpose")))


def test_joints_come_in_order_for_every_box_alone_as_together(person):
    found = person.joints(WIDE, BOXES)
    assert found.shape == (2, 17, 3) and person.joints(WIDE, []).shape == (0, 17, 3)
    np.testing.assert_allclose(person.joints(WIDE, BOXES[1:])[0], found[1], atol=1e-4)
    assert np.isfinite(found).all() and (np.abs(found[..., :2] - 0.5) < 1).all()


def test_a_peak_of_the_heatmap_lies_where_it_is_in_the_picture(person, monkeypatch):
    """A joint in the middle of the heatmap is the middle of its box: boxes are x, y, width, height in pixels."""
    heat = torch.zeros(2, 17, 64, 48)
    heat[:, :, 31:33, 23:25] = 1.0
    output = type("Output", (), {"heatmaps": heat})
    model = type("Model", (), {"config": person.model.config, "device": "cpu", "dtype": torch.float32})()
    monkeypatch.setattr(type(model), "__call__", lambda self, *args, **kwargs: output(), raising=False)
    monkeypatch.setattr(person, "model", model)
    for (x0, y0, x1, y1), joints in zip(BOXES, person.joints(WIDE, BOXES)):
        np.testing.assert_allclose(joints[:, :2], [[(x0 + x1) / 2, (y0 + y1) / 2]] * 17, atol=0.02)


def test_no_joint_is_dropped_however_faint(person):
    """`threshold` of the post-processing would delete some of them, and with them the order."""
    assert person.joints(Image.new("RGB", (40, 40)), [(0, 0, 1, 1)]).shape == (1, 17, 3)


def test_the_mirrored_crop_exchanges_left_and_right(person):
    pairs = torch.tensor(PERSON.mirror)
    crop = torch.randn(1, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = person.model(crop.flip(-1)).heatmaps
        back = person.model(crop.flip(-1), flip_pairs=pairs).heatmaps
    torch.testing.assert_close(back, plain[:, PERSON.mirrored()].flip(-1))


def test_both_views_of_a_crop_are_averaged_under_cocos_expert(person, monkeypatch):
    seen = []

    class Model:
        config = SimpleNamespace(backbone_config=SimpleNamespace(num_experts=6))
        device, dtype = torch.device("cpu"), torch.float32

        def __call__(self, crops, dataset_index, flip_pairs=None):
            seen.append((crops, dataset_index, flip_pairs))
            heat = torch.zeros(len(crops), 17, 64, 48)
            heat[:, :, 31:33, 23:25] = 1.0 if flip_pairs is None else 0.5
            return SimpleNamespace(heatmaps=heat)

    monkeypatch.setattr(person, "model", Model())
    np.testing.assert_allclose(person.joints(WIDE, BOXES)[..., 2], 0.75, atol=1e-6)
    (plain, *_), (mirrored, _, pairs) = seen
    assert torch.equal(mirrored, plain.flip(-1)) and pairs.tolist() == [list(pair) for pair in PERSON.mirror]
    assert all(experts.tolist() == [0, 0] for _, experts, _ in seen)


def test_a_model_of_six_experts_works_for_people_with_cocos(tmp_path):
    assert opened(tiny_vision.vitpose(tmp_path, experts=6)).joints(WIDE, BOXES).shape == (2, 17, 3)


@pytest.mark.parametrize("experts", [1, 6])
def test_cocos_head_is_refused_for_animals(tmp_path, experts):
    folder = tiny_vision.vitpose(tmp_path, experts)
    with pytest.raises(ValueError, match=r'17 outputs but COCO\'s head \(id2label\[0\] = "Nose"\).*--convert-pose'):
        check_pose("--pose-animal", str(folder), ANIMAL.joints[0])
    with pytest.raises(ValueError, match="expected a ViTPose"):
        check_pose("--pose-animal", str(tiny_vision.dinov2(tmp_path / "dino")), ANIMAL.joints[0])


@pytest.mark.parametrize("dataset", list(EXPERTS))
def test_the_converted_model_is_the_routed_one(dataset, tmp_path):
    """Merging an expert into the MLP equals routing to it; the head is the data set's own."""
    state = tiny_vision.six_experts()
    converted = build(split(state, dataset), ANIMAL.joints)
    pixels = torch.randn(2, 3, 256, 192, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = converted(pixels).heatmaps
        wanted = routed(state, EXPERTS[dataset], pixels)
        other = routed(state, 0, pixels)
    assert (got - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp(min=1)
    assert (other - wanted).abs().max() > 1e-2


def routed(state, expert, pixels):
    """Transformers' own model of six experts, routed to one, under that expert's head in plain torch."""
    import transformers as hf

    parts = split({**state}, "ap10k")  # names alone; the MLP and the head are replaced below
    config = hf.VitPoseBackboneConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        mlp_ratio=2,
        num_experts=6,
        part_features=8,
        out_indices=[1],
    )
    backbone = hf.VitPoseBackbone(config).eval()
    own = {key.removeprefix("backbone."): value for key, value in parts.items() if key.startswith("backbone.")}
    for kind in ("weight", "bias"):
        own[f"encoder.layer.0.mlp.fc2.{kind}"] = state[f"backbone.blocks.0.mlp.fc2.{kind}"]
        for index in range(6):
            own[f"encoder.layer.0.mlp.experts.experts.{index}.{kind}"] = state[
                f"backbone.blocks.0.mlp.experts.{index}.{kind}"
            ]
    wanted = {key.replace(".experts.experts.", ".experts."): value for key, value in own.items()}
    backbone.load_state_dict(wanted)
    features = backbone(pixels, dataset_index=torch.full((len(pixels),), expert)).feature_maps[-1]
    maps = features.transpose(1, 2).reshape(len(pixels), 32, 16, 12)
    head = "keypoint_head" if expert == 0 else f"associate_keypoint_heads.{expert - 1}"
    for number in (0, 3):
        norm = f"{head}.deconv_layers.{number + 1}"
        maps = torch.conv_transpose2d(maps, state[f"{head}.deconv_layers.{number}.weight"], stride=2, padding=1)
        maps = torch.batch_norm(
            maps, state[f"{norm}.weight"], state[f"{norm}.bias"], state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"], False, 0.1, 1e-5, False,
        ).relu()  # fmt: skip
    return torch.conv2d(maps, state[f"{head}.final_layer.weight"], state[f"{head}.final_layer.bias"])


def test_the_command_converts_a_file_whole_or_not_at_all(tmp_path, capsys):
    file, folder = tmp_path / "vitpose+_tiny.pth", tmp_path / "animal"
    torch.save({"state_dict": tiny_vision.six_experts(), "meta": {"epoch": 210}}, file)
    assert main([str(file), str(folder), "--convert-pose"]) == 0
    check_pose("--pose-animal", str(folder), ANIMAL.joints[0])
    assert opened(folder, ANIMAL).joints(WIDE, BOXES).shape == (2, 17, 3)
    assert main([str(file), str(folder), "--convert-pose"]) == 2 and "exists" in capsys.readouterr().err
    for content in ({"state_dict": {"x": torch.zeros(1)}}, [1, 2]):
        torch.save(content, file)
        assert main([str(file), str(tmp_path / "none"), "--convert-pose"]) == 2
    file.write_bytes(b"<html>")
    assert main([str(file), str(tmp_path / "none"), "--convert-pose"]) == 2
    assert not (tmp_path / "none").exists() and len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_no_pixel_is_in_two_cut_outs(kind, tmp_path):
    segmenter = open_segmenter(str(getattr(tiny_vision, kind)(tmp_path)), "cpu")
    cuts, masks = segmenter.cut(WIDE, BOXES), segmenter.masks(WIDE, BOXES)
    assert not (cuts[0][0] & cuts[1][0]).any() and all(isinstance(quality, float) for _, quality in cuts)
    assert ((cuts[0][0] | cuts[1][0]) == (masks[0] | masks[1])).all() and segmenter.cut(WIDE, []) == []


def test_a_pixel_of_two_masks_is_the_surest_ones_with_its_own_estimate():
    segmenter = BoxSegmenter("made", None, None, "cpu", torch.float32)
    segmenter._answers = lambda *_: [(np.array([[1.0, 3.0, -1.0]]), 0.9), (np.array([[2.0, 1.0, -2.0]]), 0.8)]
    (first, sure), (second, less) = segmenter.cut(WIDE, BOXES)
    assert first.tolist() == [[False, True, False]] and second.tolist() == [[True, False, False]]
    assert (sure, less) == (0.9, 0.8)


def test_scores_of_owl_are_lower():
    for name, score in (("google/owlv2-base-patch16", 0.15), ("IDEA-Research/grounding-dino-tiny", 0.30)):
        assert backends(AnnotateOptions("x", detector=name, device="cpu")).thresholds.detection.score == score


def test_a_folder_without_a_model_is_named_with_the_option_it_was_given_by(tmp_path):
    named = {"reader": "--reader", "embedder": "--embedder", "segmenter": "--segmenter", "detector": "--detector"}
    parts = backends(AnnotateOptions("x", **dict.fromkeys(named, str(tmp_path)), device="cpu")).parts()
    for role, option in named.items():
        with pytest.raises(ValueError, match=f"{option} {tmp_path}: cannot be opened"):
            parts[role].open()


def test_licences_are_known_or_said_to_be_unknown(tmp_path):
    assert licence_of("facebook/sam2.1-hiera-tiny") == ("Apache-2.0", "")
    assert licence_of("facebook/sam3")[1] and licence_of("Qwen/Qwen2.5-VL-3B-Instruct")[1]
    assert licence_of("somebody/something") == ("unknown", "Its licence is not known here: read it.")
    assert licence_of(str(tmp_path)) == ("unknown", "") and fingerprint("facebook/sam3") == ""
    for part in backends(AnnotateOptions("x", pose_animal="y/z", device="cpu")).parts().values():
        assert part.name == "y/z" or (part.licence, part.note) == ("Apache-2.0", "")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    (folder / "01").mkdir()
    rng = np.random.default_rng(3)
    for name in ("target", "1 cat", "2 dog"):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(folder / "01" / f"{name}.png")
    return folder


def test_all_models_of_transformers_together(raw, tmp_path):
    """Random weights find nonsense, but every stage runs, and the report names what ran."""
    models = tmp_path / "models"
    animal = tmp_path / "animal"
    torch.save({"state_dict": tiny_vision.six_experts()}, tmp_path / "file.pth")
    assert main([str(tmp_path / "file.pth"), str(animal), "--convert-pose"]) == 0
    (tmp_path / "limits.toml").write_text("[detection]\nscore = 0.0\n", encoding="utf-8")
    options = AnnotateOptions(
        "hugging",
        kinds={"cat": "animal", "dog": "person"},
        detector=str(tiny_vision.grounding_dino(models / "dino")),
        segmenter=str(tiny_vision.sam2(models / "sam")),
        pose_animal=str(animal),
        pose_person=str(tiny_vision.vitpose(models / "person")),
        embedder=str(tiny_vision.dinov2(models / "look")),
        reader=str(tiny_vision.qwen_vl(models / "reader")),
        device="cpu",
        thresholds=tmp_path / "limits.toml",
        keep_rejected=True,
    )
    report = annotate(raw, tmp_path / "out", options)
    assert set(report.models) == {"detector", "segmenter", "pose ap10k", "pose coco", "embedder", "reader"}
    (one,) = report.triplets
    assert one.gates["relation"].status != "not judged" and one.complete
    folder = tmp_path / "out" / ("" if one.accepted else "rejected")
    (line,) = (folder / "triplets.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["skeletons"] == [AP10K, COCO]


def test_a_model_is_gone_when_its_stage_is_over(tmp_path):
    options = AnnotateOptions("x", detector=str(tiny_vision.grounding_dino(tmp_path)), device="cpu")
    with opened_part(backends(options).detector) as detector:
        network = weakref.ref(detector.model)
    del detector
    assert network() is None


def test_models_that_do_not_open_are_named_together_before_anything_is_written(raw, tmp_path):
    options = AnnotateOptions(
        "hugging",
        detector=(other := str(tiny_vision.dinov2(tmp_path / "dino"))),
        segmenter=other,
        pose_animal=str(tiny_vision.vitpose(tmp_path / "coco")),
        pose_person="none",
        embedder="none",
        device="cpu",
    )
    with pytest.raises(UserErrors) as error:
        annotate(raw, tmp_path / "out", options)
    assert [one.split()[0] for one in error.value.messages] == ["--detector", "--segmenter", "--pose-animal"]
    assert all("a model of type 'dinov2'; expected one of" in one for one in error.value.messages[:2])
    assert not (tmp_path / "out").exists()
