"""Random models of a few thousand weights, saved as the published detectors, segmenters, encoders and judges are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf

from core.identity.image_prep import CLIP_MEAN, CLIP_STD
from training.host_diffusers.miniworld.architectures import FOLDER

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "cat", "dog", "bear", "plushie", "polar", "##s")
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIDE = 64


def grounding_dino(folder: Path) -> Path:
    torch.manual_seed(0)
    wide = {**SMALL, "hidden_size": 32}
    swin = hf.SwinConfig(
        image_size=SIDE,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = hf.GroundingDinoConfig(
        backbone_config=swin,
        text_config=hf.BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **wide),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=10,
        max_text_len=64,
    )
    hf.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer = hf.BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    images = hf.GroundingDinoImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    hf.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def owlv2(folder: Path) -> Path:
    torch.manual_seed(1)
    tokenizer = hf.CLIPTokenizer.from_pretrained(FOLDER / "tokenizer", model_max_length=16)
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    config = hf.Owlv2Config(
        text_config=text, vision_config={**SMALL, "image_size": SIDE, "patch_size": 16}, projection_dim=16
    )
    hf.Owlv2ForObjectDetection(config).save_pretrained(folder)
    hf.Owlv2Processor(hf.Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(folder)
    return folder


def sam3(folder: Path) -> Path:
    pytest.importorskip("torchvision", reason="SAM 3's processor needs torchvision: pip install -e '.[backbones]'")
    torch.manual_seed(0)
    side, wide = 112, {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    tokenizer = hf.CLIPTokenizer.from_pretrained(FOLDER / "tokenizer", model_max_length=32)
    backbone = {
        **wide,
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 2,
        "image_size": side,
        "pretrain_image_size": side,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    text = {**wide, "num_hidden_layers": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 32}
    config = hf.Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={**text, "projection_dim": 32},
        geometry_encoder_config={**wide, "num_layers": 1},
        detr_encoder_config={**wide, "num_layers": 1},
        detr_decoder_config={**wide, "num_layers": 2, "num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    hf.Sam3Model(config).save_pretrained(folder)
    images = hf.Sam3ImageProcessor(size={"height": side, "width": side})
    hf.Sam3Processor(images, tokenizer, target_size=side).save_pretrained(folder)
    return folder


def _sam_parts() -> dict:
    return {
        "prompt_encoder_config": {
            "hidden_size": 16,
            "image_size": SIDE,
            "patch_size": 16,
            "mask_input_channels": 4,
            "image_embedding_size": 4,
        },
        "mask_decoder_config": {
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    }


def sam(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "mlp_dim": 16,
        "window_size": 2,
        "global_attn_indexes": [0],
        "num_pos_feats": 8,
        "initializer_range": 0.02,
    }
    hf.SamModel(hf.SamConfig(vision_config=vision, **_sam_parts())).save_pretrained(folder)
    hf.SamProcessor(
        hf.SamImageProcessor(
            size={"longest_edge": SIDE},
            pad_size={"height": SIDE, "width": SIDE},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )
    ).save_pretrained(folder)
    return folder


def sam2(folder: Path) -> Path:
    pytest.importorskip("torchvision", reason="SAM 2's processor needs torchvision: pip install -e '.[backbones]'")
    torch.manual_seed(0)
    hiera = hf.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1] * 4,
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4] * 4,
        global_attention_blocks=[],
    )
    vision = hf.Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[64, 32, 16, 8],
        fpn_hidden_size=16,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )
    hf.Sam2Model(hf.Sam2Config(vision_config=vision, **_sam_parts())).save_pretrained(folder)
    hf.Sam2Processor(
        hf.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16})
    ).save_pretrained(folder)
    return folder


def _preprocessing(folder: Path, kind: str) -> None:
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": kind,
                "size": {"height": 32, "width": 32},
                "crop_size": {"height": 32, "width": 32},
                "do_normalize": True,
                "do_resize": True,
                "image_mean": CLIP_MEAN,
                "image_std": CLIP_STD,
            }
        ),
        encoding="utf-8",
    )


def dinov2(folder: Path) -> Path:
    torch.manual_seed(0)
    hf.Dinov2Model(
        hf.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    ).save_pretrained(folder)
    _preprocessing(folder, "ViTImageProcessor")
    return folder


def siglip(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    hf.SiglipModel(
        hf.SiglipConfig(text_config={**SMALL, "vocab_size": 64, "max_position_embeddings": 8}, vision_config=vision)
    ).save_pretrained(folder)
    _preprocessing(folder, "SiglipImageProcessor")
    return folder


def clip(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = hf.CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**SMALL, **ends, "vocab_size": len(tokenizer), "pad_token_id": 0}
    hf.CLIPModel(
        hf.CLIPConfig(text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 8}, projection_dim=16)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _preprocessing(folder, "CLIPImageProcessor")
    return folder


def qwen_vl(folder: Path) -> Path:
    """Qwen2.5-VL of 40 thousand weights that knows bytes and the words Yes and No."""
    pytest.importorskip("torchvision", reason="the judge's processor needs torchvision: pip install -e '.[backbones]'")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o")]
    vocabulary |= {"".join(merge): len(vocabulary) + index for index, merge in enumerate(merges)}
    whole = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    whole.pre_tokenizer, whole.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ]
    whole.add_special_tokens(special)
    tokenizer = hf.Qwen2Tokenizer(tokenizer_object=whole, pad_token=special[0], eos_token=special[2])
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special)))
    template = (
        "{% for m in messages %}<|im_start|>{{m['role']}}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{c['text']}}{% endif %}{% endfor %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
    }
    config = hf.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = hf.Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.save_pretrained(folder)
    hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 16),
        tokenizer,
        hf.Qwen2VLVideoProcessor(),
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def vitpose(folder: Path, experts: int = 1, joints: str = "Nose") -> Path:
    """ViTPose of one layer; its first output is called `joints`, COCO's by default."""
    pytest.importorskip("torchvision", reason="ViTPose's processor needs torchvision: pip install -e '.[backbones]'")
    torch.manual_seed(0)
    names = {index: f"joint_{index}" if index else joints for index in range(17)}
    backbone = hf.VitPoseBackboneConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=2,
        num_experts=experts,
        part_features=8,
        out_indices=[1],
    )
    config = hf.VitPoseConfig(
        backbone_config=backbone, id2label=names, label2id={name: index for index, name in names.items()}
    )
    hf.VitPoseForPoseEstimation(config).save_pretrained(folder)
    hf.VitPoseImageProcessor().save_pretrained(folder)
    return folder


def six_experts(dataset_joints=(17, 14, 16, 17, 17, 133)) -> dict[str, torch.Tensor]:
    """The state dict of an original ViTPose++ file, tiny: 32 wide, one block, part features of 8."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    width, hidden, part = 32, 64, 8
    state = {
        "backbone.pos_embed": some(1, 193, width),
        "backbone.cls_token": some(1, 1, width),
        "backbone.patch_embed.proj.weight": some(width, 3, 16, 16),
        "backbone.patch_embed.proj.bias": some(width),
        "backbone.last_norm.weight": some(width),
        "backbone.last_norm.bias": some(width),
    }
    shapes = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width - part, hidden),
        "mlp.fc2.bias": (width - part,),
    }
    for expert in range(6):
        shapes |= {f"mlp.experts.{expert}.weight": (part, hidden), f"mlp.experts.{expert}.bias": (part,)}
    state |= {f"backbone.blocks.0.{key}": some(*shape) for key, shape in shapes.items()}
    for head, joints in enumerate(dataset_joints):
        name = "keypoint_head" if head == 0 else f"associate_keypoint_heads.{head - 1}"
        for number, inputs in ((0, width), (3, 256)):
            state[f"{name}.deconv_layers.{number}.weight"] = some(inputs, 256, 4, 4)
            norm = f"{name}.deconv_layers.{number + 1}"
            state |= {f"{norm}.weight": some(256), f"{norm}.bias": some(256), f"{norm}.running_mean": some(256)}
            state |= {f"{norm}.running_var": some(256).abs() + 1, f"{norm}.num_batches_tracked": torch.tensor(1)}
        state |= {f"{name}.final_layer.weight": some(joints, 256, 1, 1), f"{name}.final_layer.bias": some(joints)}
    return state
