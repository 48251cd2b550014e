"""Every place that ARCHITECTURE.md lists is there in the ComfyUI under test, unless it was never seen in it."""

from __future__ import annotations

import importlib

from tests.host.comfyui import find_comfyui, version
from tests.host_map import places

SEEN = ("0.3.64", "0.33.0")


def exists(place: str) -> bool:
    """Whether a name can be reached, or a file holds a word."""
    if ": " in place:
        file, word = place.split(": ", 1)
        path = find_comfyui() / file
        return path.is_file() and word in path.read_text(encoding="utf-8")
    parts = place.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            if not hasattr(value, name):
                return False
            value = getattr(value, name)
        return True
    return False


def test_every_place_that_the_pack_leans_on_is_there(pack):
    """One that was seen in the newer version only must be missing in the older, or the list is wrong."""
    here = version(find_comfyui())
    listed = [place for place in places() if not place.text.startswith("page: ")]
    expected = {each.text: each.seen_in in (None, here) or here not in SEEN for each in listed}
    found = {place: exists(place) for place in expected}
    assert [place for place in expected if expected[place] and not found[place]] == []
    assert [place for place in expected if found[place] and not expected[place]] == []
