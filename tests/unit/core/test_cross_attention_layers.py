"""The address book at full SDXL size, against the published tables."""

from core.cross_attention_layers import SDXL, UNetSpec

# diffusers block, ComfyUI block, width, depth; in the published order
PUBLISHED = [
    ("down_blocks.1.attentions.0", ("input", 4), 640, 2),
    ("down_blocks.1.attentions.1", ("input", 5), 640, 2),
    ("down_blocks.2.attentions.0", ("input", 7), 1280, 10),
    ("down_blocks.2.attentions.1", ("input", 8), 1280, 10),
    ("up_blocks.0.attentions.0", ("output", 0), 1280, 10),
    ("up_blocks.0.attentions.1", ("output", 1), 1280, 10),
    ("up_blocks.0.attentions.2", ("output", 2), 1280, 10),
    ("up_blocks.1.attentions.0", ("output", 3), 640, 2),
    ("up_blocks.1.attentions.1", ("output", 4), 640, 2),
    ("up_blocks.1.attentions.2", ("output", 5), 640, 2),
    ("mid_block.attentions.0", ("middle", 0), 1280, 10),
]


def test_the_70_sites_of_sdxl_in_the_published_order():
    expected = [
        (f"{path}.transformer_blocks.{index}.attn2", (*block, index), width)
        for path, block, width, depth in PUBLISHED
        for index in range(depth)
    ]
    assert [(site.diffusers, site.comfy, site.width) for site in SDXL.sites()] == expected
    assert len(expected) == 70


def test_a_small_unet():
    layout = UNetSpec.of_depths((32, 64), 1, (0, 2), 32)
    found = [(site.diffusers, site.comfy) for site in layout.sites()]
    assert found[:2] == [
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2", ("input", 3, 0)),
        ("down_blocks.1.attentions.0.transformer_blocks.1.attn2", ("input", 3, 1)),
    ]
    assert found[2][1] == ("output", 0, 0)
    assert found[-1][1] == ("middle", 0, 1)


def test_a_middle_without_transformers_and_one_block_more_on_the_way_up():
    def counts(middle):
        sites = UNetSpec.of_depths((8, 16), 2, (0, 3), 12, middle).sites()
        return [sum(site.comfy[0] == part for site in sites) for part in ("input", "output", "middle")]

    assert counts(0) == [6, 9, 0] and counts(None) == [6, 9, 3] and counts(1) == [6, 9, 1]
