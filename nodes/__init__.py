"""The nodes. A group whose import fails is reported with its cause and leaves the others standing."""

import importlib
import logging

from comfy_api.latest import ComfyExtension, io

log = logging.getLogger(__name__)

GROUPS = {
    "scene": ("RelateSubject", "RelateLayout", "RelateLayoutPreview", "RelateScenePrompt"),
    "apply_scene": ("RelateApplyScene",),
    "layout_prompt": ("RelateSceneToLayoutPrompt",),
    "identity": ("RelateIdentityModelLoader", "RelateEncodeIdentity", "RelateApplyIdentity", "RelateFeaturePreview"),
    "relation": ("RelateRelationLoader",),
    "subject_adapter": ("RelateSubjectAdapterLoader", "RelateEncodeFusedPrompt", "RelateApplySubjectAdapter"),
    "miniworld": ("RelateMiniworldLoader", "RelateMiniworldCreature"),
    "miniworld_flux": ("RelateMiniworldFluxLoader",),
    "dreamo": ("RelateDreamOLoader",),
    "references": ("RelateReference", "RelateApplyReferences"),
    "reference_regions": ("RelateReferenceRegions",),
    "routing": ("RelateRoutingSampler", "RelateRoutingPreview"),
    "scoring": ("RelateScorePictures",),
    "training_data": ("RelateSaveTriplet",),
}


class RelateExtension(ComfyExtension):
    """The pack's list of nodes for ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .host_comfy.notices import show_on_page

        show_on_page(__name__)
        nodes = []
        for group, names in GROUPS.items():
            try:
                module = importlib.import_module(f".{group}", __name__)
                group_nodes = [getattr(module, name) for name in names]
                for node in group_nodes:
                    node.GET_SCHEMA()
            except Exception:  # whatever breaks one group must not take the others down; its cause is logged whole
                log.exception(
                    "Relate: the nodes %s are missing because their group '%s' cannot be imported",
                    ", ".join(names),
                    group,
                )
                continue
            nodes += group_nodes
        return nodes
