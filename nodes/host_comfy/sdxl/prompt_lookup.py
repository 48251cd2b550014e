"""State of a sampling run: its step, its conditionings, and the positions of the subjects' names in them."""

from __future__ import annotations

import logging

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....core.identity.auto_layout import AttentionRecord, Positions
from ....core.prompt.name_tokens import mentions
from ....core.sampling_steps import StepCounter
from ..model_calls import CALL, Conditionings
from ..prompt_graph import Entry, read_positive
from ..prompt_tokens import PromptTokens
from ..scene.recording_clip import TEXT_KEY
from ..tiles import Tiles

log = logging.getLogger(__name__)

RUN = "relate_run"


class Run:
    """State of one sampling run, shared by all identities of its MODEL.

    Args:
        guider: ComfyUI's; it knows the conditionings.
        size: height and width of the latent.
    """

    def __init__(self, guider, size: tuple[int, int]) -> None:
        self.conditionings = Conditionings(guider, size)
        self.tiles = Tiles(size)
        self.steps: StepCounter | None = None  # counted only where the layout follows the attention
        self._records: dict[int, AttentionRecord] = {}
        self._places: dict[int, dict[object, tuple[Positions, ...]]] = {}
        self._sigmas: dict[int, tuple[float, float]] = {}

    def start(self, identity, sigmas: tuple[float, float], places: dict[object, tuple[Positions, ...]]) -> None:
        """Note an identity's window as sigmas (from, to), and the positions of its names by conditioning."""
        if identity.layout == "attention":
            self.steps = self.steps or StepCounter()
        self._records[id(identity)] = AttentionRecord()
        self._places[id(identity)] = places
        self._sigmas[id(identity)] = sigmas

    def record_of(self, identity) -> AttentionRecord:
        return self._records[id(identity)]

    def places_of(self, identity, uuid: object) -> tuple[Positions, ...] | None:
        """Look up the positions of each subject's name in a conditioning; None where none of them is known."""
        return self._places[id(identity)].get(uuid)

    def sigmas_of(self, identity) -> tuple[float, float]:
        return self._sigmas[id(identity)]


def attach_run(model, identity, names: tuple[str, ...], tokens: PromptTokens) -> None:
    """Give a clone of a MODEL the wrappers that keep a Run up to date while it samples."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "relate", _begin_run(identity, names, tokens))
    if not model.get_wrappers(WrappersMP.PREDICT_NOISE, "relate"):
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "relate", _begin_step)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "relate", _begin_prediction)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "relate", _begin_call)


def _begin_run(identity, names: tuple[str, ...], tokens: PromptTokens):
    """Read the schedule and the prompt, and free the device's memory afterwards: the OUTER_SAMPLE wrapper."""

    def wrapper(executor, *args, **kwargs):
        guider = executor.class_obj
        noise = args[0] if args else kwargs["noise"]
        run = guider.model_options["transformer_options"].setdefault(RUN, Run(guider, tuple(noise.shape[-2:])))
        # here and not when the node runs: a node behind it may still have changed the schedule
        sampling = guider.model_patcher.get_model_object("model_sampling")
        entries = read_positive()
        warn_of_missing(names, entries)
        places = {}
        if identity.layout == "attention":
            places = find_names(run.conditionings.positive(), entries, names, tokens)
            _warn_of_boxes(names, places)
        run.start(identity, tuple(map(sampling.percent_to_sigma, identity.window)), places)
        try:
            return executor(*args, **kwargs)
        finally:
            identity.release()

    return wrapper


def _begin_step(executor, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed=None):
    """Note one evaluation of a sampler: the PREDICT_NOISE wrapper."""
    options = (model_options or {}).get("transformer_options", {})
    run = options.get(RUN)
    if run is not None:
        if run.steps is not None:
            schedule = options.get("sample_sigmas")
            run.steps.advance(float(timestep.max()), [] if schedule is None else schedule.tolist())
        run.tiles.begin_step(x)
    return executor(x, timestep, model_options or {}, seed)


def _begin_prediction(executor, model, conds, x_in: Tensor, timestep: Tensor, model_options: dict):
    """Note the lists and the picture of a prediction, which guidance may change: the CALC_COND_BATCH wrapper."""
    run = model_options.get("transformer_options", {}).get(RUN)
    if run is None:
        return executor(model, conds, x_in, timestep, model_options)
    run.tiles.begin_prediction(x_in)
    with run.conditionings.predicting(conds):
        return executor(model, conds, x_in, timestep, model_options)


def _begin_call(
    executor,
    x: Tensor,
    t: Tensor,
    c_concat=None,
    c_crossattn=None,
    control=None,
    transformer_options: dict | None = None,
    **conds,
):
    """Note which rows of this call are positive, and the parts they show: the APPLY_MODEL wrapper."""
    options = dict(transformer_options or {})
    run = options.get(RUN)
    if run is not None:
        options[CALL] = run.tiles.read(x, options, run.conditionings)
    return executor(x, t, c_concat, c_crossattn, control, options, **conds)


def find_names(
    positive: list[dict], entries: list[Entry] | None, names: tuple[str, ...], tokens: PromptTokens
) -> dict[object, tuple[Positions, ...]]:
    """Find the subjects' names in each positive conditioning.

    Args:
        positive: the guider's.
        entries: the texts they were encoded from, as read from the graph.

    Returns:
        By ``uuid``, for each name its positions, empty where it has none. Only conditionings are there whose texts are
        known and whose length is that of their tokens: nothing is counted in a text that was not encoded.
    """
    if entries is None or len(entries) != len(positive):
        entries = [()] * len(positive)
    places = {}
    for cond, entry in zip(positive, entries):
        recorded = cond.get(TEXT_KEY)  # of a CLIP that says itself where its words stand
        if recorded is not None and recorded.length == _length(cond):
            places[cond["uuid"]] = _unambiguous(names, recorded.find(names))
            continue
        pieces = [piece for piece in entry if piece is not None and piece.exact]
        if len(pieces) < len(entry):
            continue
        positions: list[Positions] = [()] * len(names)
        begin = 0
        for piece in pieces:
            for index, in_piece in enumerate(tokens.find(piece.texts, names)):
                positions[index] += tuple(begin + at for at in in_piece)  # a name in several texts has all its places
            begin += tokens.length(piece.texts)
        if begin > 0 and _length(cond) == begin:
            places[cond["uuid"]] = tuple(positions)
    return places


def _length(cond: dict) -> int:
    """Count the positions of a conditioning."""
    context = cond.get("cross_attn")
    return 0 if context is None else context.shape[1]


def _unambiguous(names: tuple[str, ...], places: list[Positions]) -> tuple[Positions, ...]:
    """Drop the positions of a name that comes fewer times than there are subjects of that name."""
    lost = {name.lower() for name, positions in zip(names, places) if not positions}
    return tuple(() if name.lower() in lost else tuple(positions) for name, positions in zip(names, places))


def warn_of_missing(names: tuple[str, ...], entries: list[Entry] | None) -> None:
    """Warn of subjects that the prompt does not name, if all of it is known."""
    all_pieces = [piece for entry in entries or [] for piece in entry]
    pieces = [piece for piece in all_pieces if piece is not None]
    if not pieces or len(pieces) < len(all_pieces):
        return
    texts = list(dict.fromkeys(text for piece in pieces for text in piece.texts.values()))
    for name in names:
        if not any(mentions(text, name) for text in texts):
            log.warning(
                "Relate: subject '%s' is not in the prompt %r; name it there as in its Subject node, or "
                "the picture may lack it.",
                name,
                texts[0][:200],
            )


def _warn_of_boxes(names: tuple[str, ...], places: dict[object, tuple[Positions, ...]]) -> None:
    """Warn of subjects that keep their boxes although the layout is to follow the prompt's attention."""
    lost = [name for index, name in enumerate(names) if not any(positions[index] for positions in places.values())]
    if lost:
        log.warning(
            "Relate: layout 'attention' follows the prompt's words for each subject, but where the prompt "
            "names %s is not known, so the boxes are used instead. Write each name once in a text that goes "
            "straight into CLIP Text Encode, and give subjects of one kind names of their own.",
            ", ".join(f"'{name}'" for name in lost),
        )
