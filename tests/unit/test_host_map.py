"""The list of private places in ARCHITECTURE.md has every name of ComfyUI that the code uses, once."""

from tests.host_map import named_in_code, named_on_the_page, places

LISTED = [place.text for place in places()]


def within(name: str, listed: list[str]) -> bool:
    """Whether a place is the name itself, something in it, or what it is an attribute of."""
    return any(f"{place}.".startswith(f"{name}.") or f"{name}.".startswith(f"{place}.") for place in listed)


def covered(name: str) -> bool:
    """Whether a name of ComfyUI is listed, or its file with its last word."""
    module, _, last = name.rpartition(".")
    return within(name, LISTED) or f"{module.replace('.', '/')}.py: {last}" in LISTED


def test_every_name_of_comfyui_that_the_code_uses_is_listed():
    lacking = [f"{file}: {name}" for name, file in named_in_code().items() if not covered(name)]
    assert lacking == []


def test_everything_of_the_page_that_the_scripts_use_is_listed():
    on_page = [place.removeprefix("page: ") for place in LISTED if place.startswith("page: ")]
    used = named_on_the_page()
    lacking = [f"{file}: {name}" for name, file in used.items() if not within(name, on_page)]
    assert "app.graphToPrompt" in used and lacking == []


def test_the_code_is_read_and_each_place_is_listed_once():
    assert "comfy.lora.load_lora" in named_in_code()
    assert len(LISTED) > 50 and sorted(set(LISTED)) == sorted(LISTED)
