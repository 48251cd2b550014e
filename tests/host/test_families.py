"""The tables of families and engines are whole: no row without what the tests and the other tables need of it."""

import pytest

from tests.host import native_families
from tests.host.scene_studio import FAMILIES


def test_every_family_has_a_tiny_model(pack, tiny, comfy):
    """A family without one is tested by nothing."""
    names = native_families.available()
    if lacking := sorted(native_families.FAMILIES.keys() - set(names)):
        pytest.skip(f"this ComfyUI has no {', '.join(lacking)}")
    families = pack.module("nodes.host_comfy.references.families")
    tested = {families.family_of(native_families.Studio(name, tiny, comfy).model.model).name for name in names}
    assert {row.name for row in families.FAMILIES} - tested == set()


def test_every_engine_is_wired_and_tested(pack):
    """SDXL and DreamO are wired by Apply Scene itself; the first Qwen-Image-Edit is chosen by hand."""
    engines, wiring = (pack.module(f"nodes.host_comfy.scene.{name}") for name in ("engines", "wiring"))
    assert sorted(wiring.WIRE) == sorted(set(engines.NAMES) - {"sdxl", "dreamo"})
    assert wiring.WIRE.keys() - set(FAMILIES) == {"qwen_edit_first"}
