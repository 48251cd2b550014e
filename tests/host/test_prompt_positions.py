"""Where subjects' names stand: counted in the conditioning that is encoded, or not known, and then boxes."""

import pytest
import torch
from safetensors.torch import save_file

from tests.host import graph_run
from tests.host.graph_run import encode, sampler
from tests.host.pictures import photograph
from tests.host.studio import LEFT, RIGHT

SITES = 8
MEADOW = "a wide green meadow under a blue sky"


@pytest.fixture
def lookup(studio, pack, comfy, monkeypatch):
    """The words at the positions found for each name in each positive conditioning of a graph's sampler."""
    run_module, comfy_nodes = pack.module("nodes.host_comfy.sdxl.prompt_lookup"), comfy
    tokens = pack.module("nodes.host_comfy.prompt_tokens").PromptTokens.of(studio.base.clip)

    def look(graph, *names, sampler_id="sampler"):
        import comfy.sampler_helpers

        graph = {"negative": encode("blurry"), **graph}
        run = graph_run.GraphRun(comfy_nodes, graph, studio.base.clip, studio.base.model, monkeypatch)
        run.running(pack, monkeypatch, sampler_id)
        inputs = graph[sampler_id]["inputs"]
        inputs = graph[inputs["guider"][0]]["inputs"] if "guider" in inputs else inputs
        positive = comfy.sampler_helpers.convert_cond(run.value(inputs["positive"]))
        found = run_module.find_names(
            positive, pack.module("nodes.host_comfy.prompt_graph").read_positive(), names, tokens
        )
        return [found.get(cond["uuid"]) for cond in positive]

    return look


@pytest.fixture
def words(studio):
    """The words at positions of texts encoded one after the other."""

    def read(positions, *texts):
        tokenizer = studio.base.clip.tokenizer
        pieces = [pair[0] for text in texts for chunk in tokenizer.tokenize_with_weights(text)["l"] for pair in chunk]
        return " ".join(tokenizer.clip_l.inv_vocab[pieces[at]].removesuffix("</w>") for at in positions)

    return read


def test_a_prompt(lookup, words):
    text = "a red fox hugging a bear in the park"
    (found,) = lookup({"positive": encode(text), "sampler": sampler("positive")}, "bear", "red fox")
    assert [words(each, text) for each in found] == ["bear", "red fox"]


@pytest.mark.parametrize(
    "text",
    [
        "a (red) fox in the snow",
        "a (red:1.3) fox",
        "a red\nfox",
        "a red  fox",
        "a ((red fox))",
        "A Red FOX",
    ],
)
def test_ways_to_write_a_name(lookup, words, text):
    (found,) = lookup({"positive": encode(text), "sampler": sampler("positive")}, "red fox")
    assert words(found[0], text) == "red fox"


def test_accents_in_both_ways_are_one(lookup, words):
    (found,) = lookup({"positive": encode("a cafe\u0301 cat"), "sampler": sampler("positive")}, "caf\u00e9 cat")
    assert words(found[0], "a cafe\u0301 cat").endswith("cat") and len(found[0]) == 2


def test_a_text_beyond_one_chunk(lookup, words):
    text = "very " * 80 + "good picture of a fox"
    (found,) = lookup({"positive": encode(text), "sampler": sampler("positive")}, "fox")
    assert found[0][0] > 77 and words(found[0], text) == "fox"


def test_a_name_cut_by_the_border_of_two_chunks(lookup, words):
    text = "very " * 74 + "red fox"
    (found,) = lookup({"positive": encode(text), "sampler": sampler("positive")}, "red fox")
    assert found[0] == (75, 78) and words(found[0], text) == "red fox"


def test_concat_counts_the_texts_before(lookup, words):
    graph = {
        "meadow": encode(MEADOW),
        "names": encode("a corgi hugging a fox"),
        "sampler": sampler("both"),
        "both": {
            "class_type": "ConditioningConcat",
            "inputs": {"conditioning_to": ["meadow", 0], "conditioning_from": ["names", 0]},
        },
    }
    (found,) = lookup(graph, "corgi", "fox")
    assert [words(each, MEADOW, "a corgi hugging a fox") for each in found] == ["corgi", "fox"]
    assert min(found[0]) > 77


def test_combine_counts_in_each_text(lookup, words):
    graph = {
        "meadow": encode(MEADOW),
        "names": encode("a corgi hugging a fox"),
        "sampler": sampler("both"),
        "both": {
            "class_type": "ConditioningCombine",
            "inputs": {"conditioning_1": ["names", 0], "conditioning_2": ["meadow", 0]},
        },
    }
    names, meadow = lookup(graph, "corgi", "fox")
    assert [words(each, "a corgi hugging a fox") for each in names] == ["corgi", "fox"]
    assert meadow == ((), ())


def scene_prompt(relation="hugging"):
    """A graph whose prompt is made by Scene Prompt from two subjects."""

    def subject(name, scene):
        box = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0, "weight": 1.0}
        return {"class_type": "RelateSubject", "inputs": {"image": photograph(96, 64), "name": name, **box, **scene}}

    return {
        "fox": subject("red fox", {}),
        "scene": subject("bear", {"scene": ["fox", 0]}),
        "prompt": {
            "class_type": "RelateScenePrompt",
            "inputs": {"scene": ["scene", 0], "relation": relation, "place": "in a park"},
        },
        "positive": encode(["prompt", 0]),
        "sampler": sampler("positive"),
    }


def test_scene_prompt_is_remembered(lookup, words):
    (found,) = lookup(scene_prompt(), "bear", "red fox")
    assert [words(each, "a red fox is hugging a bear in a park") for each in found] == ["bear", "red fox"]


def test_scene_prompt_out_of_the_cache_is_known_and_another_is_not(lookup, pack):
    module = pack.module("nodes.host_comfy.prompt_graph")
    lookup(scene_prompt("riding"), "bear")
    graph = {"negative": encode("blurry"), **scene_prompt("riding")}
    link = ["positive", 0]
    ((known,),) = module._entries(graph, link, 0)
    assert known.texts["l"] == "a red fox is riding a bear in a park"
    graph["fox"]["inputs"]["name"] = "wolf"  # it has not run yet
    assert module._entries(graph, link, 0) == [(None,)]


def test_every_text_node_of_the_pack_is_remembered(studio, pack, comfy, monkeypatch):
    loading = pack.module("nodes.pipelines.load_relation")
    monkeypatch.setattr(loading, "load_onto", lambda *_: (studio.base.model, "is hugging"))
    monkeypatch.setattr(pack.module("nodes.host_comfy.folders"), "lora_path", lambda name: name)
    graph = scene_prompt("carrying")
    graph |= {
        "relation": {
            "class_type": "RelateRelationLoader",
            "inputs": {"model": ["model", 0], "lora_name": "hug.safetensors", "strength": 1.0},
        },
        "layout": {
            "class_type": "RelateSceneToLayoutPrompt",
            "inputs": {"scene": ["scene", 0], "prompt": "A red fox and a bear.", "dialect": "flux3"},
        },
        "creature": {"class_type": "RelateMiniworldCreature", "inputs": {"creature": "fox-red-cape"}},
    }
    run = graph_run.GraphRun(comfy, graph, studio.base.clip, studio.base.model, monkeypatch)
    run.running(pack, monkeypatch, "sampler")
    value = pack.module("nodes.host_comfy.prompt_graph")._value
    for link in (["prompt", 0], ["relation", 1], ["layout", 0], ["creature", 1]):
        assert value(graph, link, 0) is None
        text = run.value(link)
        assert isinstance(text, str) and value(graph, link, 0) == text


def test_a_text_made_for_each_of_a_list_is_not_known(studio, pack, comfy, monkeypatch):
    module, graph = pack.module("nodes.host_comfy.prompt_graph"), scene_prompt("chasing")
    run = graph_run.GraphRun(comfy, graph, studio.base.clip, studio.base.model, monkeypatch)
    run.running(pack, monkeypatch, "sampler")
    run.value(["prompt", 0])
    assert module._value(graph, ["prompt", 0], 0) == "a red fox is chasing a bear in a park"
    del run.results["prompt"]
    run.context.list_index = 1
    run.value(["prompt", 0])
    assert module._value(graph, ["prompt", 0], 0) is None


def test_an_area_and_a_time_range_change_no_position(lookup, words):
    graph = {
        "text": encode("a fox"),
        "sampler": sampler("late"),
        "area": {
            "class_type": "ConditioningSetArea",
            "inputs": {"conditioning": ["text", 0], "width": 96, "height": 128, "x": 0, "y": 0, "strength": 1.0},
        },
        "late": {
            "class_type": "ConditioningSetTimestepRange",
            "inputs": {"conditioning": ["area", 0], "start": 0.2, "end": 1.0},
        },
    }
    (found,) = lookup(graph, "fox")
    assert words(found[0], "a fox") == "fox"


def test_two_texts_for_two_encoders(lookup, words):
    def graph(text_l, text_g):
        size = {name: 1024 for name in ("width", "height", "target_width", "target_height")}
        return {
            "text": {
                "class_type": "CLIPTextEncodeSDXL",
                "inputs": {"clip": ["clip", 0], **size, "crop_w": 0, "crop_h": 0, "text_l": text_l, "text_g": text_g},
            },
            "sampler": sampler("text"),
        }

    (found,) = lookup(graph("a fox", "a fox"), "fox")
    assert words(found[0], "a fox") == "fox"
    assert lookup(graph("a fox", "a very red fox"), "fox") == [((),)]  # at two places: neither is right for both
    assert lookup(graph("", "a very red fox"), "fox") == [((4,),)]


def test_texts_of_other_nodes_are_computed(lookup, words):
    """PrimitiveString, and a text put together from parts, a replaced word and capitals."""
    graph = {
        "first": {"class_type": "PrimitiveString", "inputs": {"value": "a corgi hugging"}},
        "second": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "  a cat  "}},
        "other": {"class_type": "StringReplace", "inputs": {"string": ["second", 0], "find": "cat", "replace": "fox"}},
        "trim": {"class_type": "StringTrim", "inputs": {"string": ["other", 0], "mode": "Both"}},
        "joined": {"class_type": "StringConcatenate", "inputs": {
            "string_a": ["first", 0], "string_b": ["trim", 0], "delimiter": " "}},
        "loud": {"class_type": "CaseConverter", "inputs": {"string": ["joined", 0], "mode": "UPPERCASE"}},
        "text": encode(["loud", 0]), "sampler": sampler("text"),
    }  # fmt: skip
    (found,) = lookup(graph, "corgi", "fox")
    assert [words(each, "a corgi hugging a fox") for each in found] == ["corgi", "fox"]


class WildcardNode:
    """A text node of another pack."""

    RETURN_TYPES, FUNCTION = ("STRING",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {})}}

    def run(self, text):
        return (text.replace("__animal__", "fox"),)


def test_a_text_that_is_not_known_has_no_positions(lookup, comfy, monkeypatch):
    monkeypatch.setitem(comfy.NODE_CLASS_MAPPINGS, "WildcardNode", WildcardNode)
    graph = {
        "made": {"class_type": "WildcardNode", "inputs": {"text": "an __animal__"}},
        "text": encode(["made", 0]),
        "known": encode("a fox"),
        "sampler": sampler("both"),
        "both": {
            "class_type": "ConditioningCombine",
            "inputs": {"conditioning_1": ["text", 0], "conditioning_2": ["known", 0]},
        },
    }
    assert lookup(graph, "fox") == [None, ((2,),)]


def test_a_clip_that_records_its_words_needs_no_graph(studio, pack, words):
    """Texts of any node, in a loop or not: the CONDITIONING says where its words stand."""
    import comfy.sampler_helpers

    clip = pack.module("nodes.host_comfy.scene.recording_clip").with_text_positions(studio.base.clip)
    tokens = pack.module("nodes.host_comfy.prompt_tokens").PromptTokens.of(studio.base.clip)
    find_names = pack.module("nodes.host_comfy.sdxl.prompt_lookup").find_names
    text = "a black dog hugging a (dog) near the dogs"
    with torch.inference_mode():
        conditioning = studio.comfy.CLIPTextEncode().encode(clip, text)[0]
        far = studio.comfy.ConditioningConcat().concat(studio.text(MEADOW), conditioning)[0]
    positive = comfy.sampler_helpers.convert_cond(conditioning)
    (found,) = find_names(positive, None, ("dog", "black dog", "cat"), tokens).values()
    assert [words(each, text) for each in found] == ["dog", "black dog", ""] and found[0] != found[1][1:]
    (shared,) = find_names(positive, None, ("dog", "dog"), tokens).values()
    assert [words(each, text) for each in shared] == ["dog", "dog"] and shared[0] != shared[1]
    assert list(find_names(positive, None, ("black dog", "black dog"), tokens).values()) == [((), ())]
    assert find_names(comfy.sampler_helpers.convert_cond(far), None, ("dog",), tokens) == {}


def test_equal_names_take_their_places_in_turn(lookup, words):
    (found,) = lookup({"positive": encode("a dog hugging a dog"), "sampler": sampler("positive")}, "dog", "dog")
    assert found == ((2,), (5,))
    assert lookup({"positive": encode("a dog"), "sampler": sampler("positive")}, "dog", "dog") == [((), ())]


def test_names_inside_names_do_not_overlap(lookup, words):
    text = "a black dog hugging a dog"
    (found,) = lookup({"positive": encode(text), "sampler": sampler("positive")}, "dog", "black dog")
    assert found == ((6,), (2, 3))


def test_a_guiders_positive(lookup, words):
    graph = {
        "positive": encode("a fox"),
        "guider": {
            "class_type": "CFGGuider",
            "inputs": {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "cfg": 3.0},
        },
        "sampler": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["guider", 0]}},
    }
    assert lookup(graph, "fox") == [((2,),)]


@pytest.fixture
def embedding(base_directory, studio, monkeypatch):
    """A textual inversion of two vectors for both encoders, and one that CLIP-L alone can take."""
    folder = base_directory / "models" / "embeddings"
    folder.mkdir(exist_ok=True)
    save_file({"clip_l": torch.ones(2, 24), "clip_g": torch.ones(2, 40)}, folder / "small.safetensors")
    save_file({"clip_l": torch.ones(2, 24), "clip_g": torch.ones(2, 24)}, folder / "narrow.safetensors")
    for part in ("clip_l", "clip_g"):
        monkeypatch.setattr(getattr(studio.base.clip.tokenizer, part), "embedding_directory", [str(folder)])


def test_embeddings_are_counted_and_never_match(lookup, embedding):
    def found(text, *names):
        return lookup({"positive": encode(text), "sampler": sampler("positive")}, *names)

    assert found("embedding:small a fox is hugging a bear", "fox", "bear") == [((4,), (8,))]
    assert found("a fox and embedding:small and a bear", "fox", "bear") == [((2,), (8,))]
    assert found("a fox with embedding:small", "embedding:small", "cat") == [((), ())]
    # CLIP-G leaves this one out, so the two encoders have the fox at different places
    assert found("embedding:narrow a fox", "fox") == [((),)]


PROMPTS = ["embedding:small, a fox is hugging a bear", "embedding:small a fox", "a fox, embedding:small", "a meadow"]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("layout", ["boxes", "attention", "none"])
def test_a_prompt_with_an_embedding_is_sampled(studio, pack, comfy, monkeypatch, embedding, prompt, layout):
    """Also a subject that is named by an embedding, and names that the prompt lacks."""
    scene = studio.scene(
        {"name": "embedding:small", "image": photograph(60, 40, seed=1), "box": LEFT},
        {"name": "bear", "image": photograph(30, 50, seed=2), "box": RIGHT},
    )
    model = studio.apply(studio.identity(scene), layout=layout)
    graph = {"negative": encode("blurry"), "positive": encode(prompt), "sampler": sampler("positive")}
    run = graph_run.GraphRun(comfy, graph, studio.base.clip, model, monkeypatch)
    run.running(pack, monkeypatch, "sampler")
    assert torch.isfinite(run.outputs("sampler")[0]["samples"]).all()


@pytest.fixture
def sampled(studio, pack, comfy, monkeypatch):
    """A graph's latent of six steps with layout 'attention' or 'boxes', subjects corgi (left) and fox (right)."""
    scene = studio.scene(
        {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
        {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
    )
    identity = studio.identity(scene)

    def sample(graph, layout):
        graph = {"negative": encode("blurry"), **graph}
        graph["sampler"]["inputs"]["steps"] = 6
        run = graph_run.GraphRun(comfy, graph, studio.base.clip, studio.apply(identity, layout=layout), monkeypatch)
        run.running(pack, monkeypatch, "sampler")
        return run.outputs("sampler")[0]["samples"]

    return sample


def test_unknown_positions_mean_boxes_and_a_true_message(sampled, caplog):
    graph = {"positive": encode(MEADOW), "sampler": sampler("positive")}
    attention, boxes = sampled(graph, "attention"), sampled(graph, "boxes")
    assert torch.equal(attention, boxes)
    assert "'corgi', 'fox' is not known, so the boxes are used" in caplog.text and "nowhere" not in caplog.text


def test_a_sampler_that_the_graph_does_not_have_means_boxes(studio, pack, comfy, monkeypatch, sampled, caplog):
    """As in a loop, whose nodes are made while the graph runs."""
    module = pack.module("nodes.host_comfy.prompt_graph")
    graph = {"positive": encode("a corgi hugging a fox"), "sampler": sampler("positive")}
    known = sampled(graph, "attention")
    monkeypatch.setattr(module, "_running_graph", lambda prompt_id: {})
    monkeypatch.setattr(graph_run.GraphRun, "running", lambda *_: None)
    latent = sampled(graph, "attention")
    assert torch.equal(latent, sampled(graph, "boxes")) and not torch.equal(latent, known)
    assert "the boxes are used" in caplog.text and "not in the prompt" not in caplog.text


def test_one_subject_without_a_place_keeps_its_box(sampled, caplog):
    graph = {"positive": encode("a corgi in the snow"), "sampler": sampler("positive")}
    attention = sampled(graph, "attention")
    assert not torch.equal(attention, sampled(graph, "boxes"))
    assert "names 'fox' is not known" in caplog.text and "subject 'fox' is not in the prompt" in caplog.text
    assert "subject 'corgi'" not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "a (corgi) and a (fox:1.2)",
        "a corgi\nand a fox",
        "a Corgi and a FOX",
    ],
)
def test_a_name_that_is_found_is_not_said_to_be_missing(sampled, caplog, text):
    sampled({"positive": encode(text), "sampler": sampler("positive")}, "attention")
    assert "not in the prompt" not in caplog.text and "not known" not in caplog.text


class OtherEncoder:
    """An encoding node of another pack, with a choice beside its text."""

    RETURN_TYPES, FUNCTION = ("CONDITIONING",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), "text": ("STRING", {}), "parser": (["comfy", "full"],)}}

    def run(self, clip, text, parser):
        return (clip.encode_from_tokens_scheduled(clip.tokenize(text)),)


@pytest.mark.parametrize("text", ["a corgi in the snow", ["made", 0]], ids=["written", "from another node"])
def test_the_choices_of_an_encoding_node_are_no_prompt(sampled, comfy, monkeypatch, caplog, text):
    monkeypatch.setitem(comfy.NODE_CLASS_MAPPINGS, "WildcardNode", WildcardNode)
    monkeypatch.setitem(comfy.NODE_CLASS_MAPPINGS, "OtherEncoder", OtherEncoder)
    inputs = {"clip": ["clip", 0], "text": text, "parser": "comfy"}
    graph = {
        "made": {"class_type": "WildcardNode", "inputs": {"text": "an __animal__"}},
        "positive": {"class_type": "OtherEncoder", "inputs": inputs},
        "sampler": sampler("positive"),
    }
    sampled(graph, "boxes")
    assert ("'fox' is not in the prompt 'a corgi in the snow'" in caplog.text) == isinstance(text, str)
    assert "prompt 'comfy'" not in caplog.text


def test_concat_and_the_names_alone_read_the_same_words(sampled, pack, monkeypatch):
    """The maps that are recorded are those of the names' own tokens, wherever these stand."""
    module = pack.module("nodes.host_comfy.sdxl.attach")
    seen, attend = [], module.phrase_attention

    def spy(query, key, heads, positions):
        seen.append(positions)
        return attend(query, key, heads, positions)

    monkeypatch.setattr(module, "phrase_attention", spy)
    sampled(
        {
            "meadow": encode(MEADOW),
            "names": encode("a corgi hugging a fox"),
            "sampler": sampler("both"),
            "both": {
                "class_type": "ConditioningConcat",
                "inputs": {"conditioning_to": ["meadow", 0], "conditioning_from": ["names", 0]},
            },
        },
        "attention",
    )
    assert set(seen) == {((77 + 2,), (77 + 5,))} and len(seen) == 6 * SITES


def attention_graph(graph, text, **more):
    """The two-subject graph on the quick UNet with layout 'attention', its prompt from the given nodes."""
    graph["base"]["inputs"]["kind"] = "small"
    graph["identity_model"]["inputs"]["model_name"] = "small_ms_adapter.bin"
    graph["apply"]["inputs"] |= {"model": ["base", 0], "layout": "attention"}
    graph["sample"]["inputs"] |= {"steps": 6, "positive": ["late", 0]}
    graph["positive"]["inputs"]["text"] = text
    late = {"conditioning": ["positive", 0], "start": 0.0, "end": 1.0}
    graph["late"] = {"class_type": "ConditioningSetTimestepRange", "inputs": late}
    return {name: node for name, node in {**graph, **more}.items() if name not in ("relation", "decode", "save")}


def test_the_server_reads_a_text_that_its_own_nodes_put_together(comfy_server, graph):
    parts = {"joined": {"class_type": "StringConcatenate", "inputs": {
        "string_a": "a corgi hugging", "string_b": ["second", 0], "delimiter": " "}},
        "second": {"class_type": "PrimitiveString", "inputs": {"value": "a fox"}}}  # fmt: skip
    said = len(comfy_server.log)
    run = comfy_server.run(attention_graph(graph, ["joined", 0], **parts))
    assert run.status == "success", run.error
    assert "Relate: layout" not in comfy_server.log[said:] and "not in the prompt" not in comfy_server.log[said:]


def test_the_server_says_when_it_keeps_the_boxes(comfy_server, graph):
    """One name is missing, one is there: the message names the missing one only."""
    said = len(comfy_server.log)
    run = comfy_server.run(attention_graph(graph, "a corgi in the snow"))
    assert run.status == "success", run.error
    assert "names 'fox' is not known, so the boxes are used instead" in comfy_server.log[said:]


@pytest.fixture
def texts_at(pack, comfy, monkeypatch):
    """The texts of each entry that an output of a graph leads back to; None where they are not known."""
    monkeypatch.setitem(comfy.NODE_CLASS_MAPPINGS, "WildcardNode", WildcardNode)
    module = pack.module("nodes.host_comfy.prompt_graph")

    def read(graph, output):
        graph = {"fox": encode("a fox"), "bear": encode("a bear"), **graph}
        entries = module._entries(graph, ["node", output], 0)
        return entries and [[None if each is None else each.texts["l"] for each in entry] for entry in entries]

    return read


FOX, BEAR = ["fox", 0], ["bear", 0]


@pytest.mark.parametrize(("kind", "inputs", "output", "texts"), [
    ("ConditioningAverage", {"conditioning_to": FOX, "conditioning_from": BEAR}, 0, "a fox"),
    ("ConditioningZeroOut", {"conditioning": FOX}, 0, None),
    ("ControlNetApplyAdvanced", {"positive": FOX, "negative": BEAR}, 0, "a fox"),
    ("ControlNetApplyAdvanced", {"positive": FOX, "negative": BEAR}, 1, "a bear"),
    ("ConditioningSetArea", {"conditioning": FOX}, 0, "a fox"), ("ANodeOfNoPack", {"conditioning": FOX}, 0, None),
    ("ConditioningSetArea", {"conditioning": ["gone", 0]}, 0, None),
    ("ConditioningSetArea", {"conditioning": ["node", 0]}, 0, None),  # a loop, which a file may hold
])  # fmt: skip
def test_nodes_between_the_text_and_the_sampler(texts_at, kind, inputs, output, texts):
    found = texts_at({"node": {"class_type": kind, "inputs": inputs}}, output)
    assert found == (None if texts is None else [[texts]])


def test_a_text_is_known_only_if_all_its_parts_are(texts_at):
    made = {"class_type": "WildcardNode", "inputs": {"text": "an __animal__"}}
    joined = {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": ["made", 0], "delimiter": " "}}
    assert texts_at({"made": made, "joined": joined, "node": encode(["joined", 0])}, 0) == [[None]]


def test_outside_of_a_run_no_text_is_known(pack):
    module = pack.module("nodes.host_comfy.prompt_graph")
    assert module.read_positive() is None and module.positive_texts() == []
    assert module.remember_outputs("a fox") == ("a fox",)
