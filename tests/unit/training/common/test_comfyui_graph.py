"""What a node's entry of /object_info says of its inputs: lists of both schemas, and lists that are not the whole."""

import pytest

from training.common.comfyui_graph import choices_of


@pytest.mark.parametrize(
    "spec, offered",
    [
        ([["a", 1]], ["a", "1"]),
        ([["a"], {"tooltip": "x"}], ["a"]),
        (["COMBO", {"options": ["a", "b"]}], ["a", "b"]),
        ([[]], []),
        (["COMBO", {"remote": {"route": "/x"}}], None),  # the page asks for it
        (["STRING", {"options": ["a"]}], None),
        (["INT"], None),
        # LoadImage: pictures of sub-folders are opened and not listed
        ([["a.png"], {"image_upload": True}], None),
        (["COMBO", {"options": ["a.png"], "image_upload": True}], None),
        (["COMBO", {"options": ["a.png"], "image_upload": False}], ["a.png"]),
    ],
)
def test_choices_of_an_input(spec, offered):
    assert choices_of({"input": {"required": {"other": ["INT"]}, "optional": {"image": spec}}}, "image") == offered


@pytest.mark.parametrize("node", [{}, {"input": {}}, {"input": {"required": {}}}, {"input": {"hidden": None}}])
def test_an_input_that_is_not_there_has_none(node):
    assert choices_of(node, "image") is None
