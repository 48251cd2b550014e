"""A running ComfyUI draws: each role by a template of its own, one job at a time, through the patient client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...common.comfyui_client import ComfyUIClient, ComfyUIError, graph_hash
from ...common.errors import UserErrors
from .. import licences
from ..request import EDIT, PANELS, TEXT, Request, file_sha256
from ..scenes import Scene, text_hash
from ..template import Template, read_template, remove_nodes
from .node_info import NodeInfo

SHIPPED = Path(__file__).parents[1] / "templates"
OPTIONS = {TEXT: "--target-template", EDIT: "--edit-template", PANELS: "--panels-template"}


class ComfyUIEngine:
    """See `request.Engine`.

    Args:
        client: of the server.
        files: a template for each role; names of shipped ones will do.
    """

    size = 1024

    def __init__(self, client: ComfyUIClient, files: Mapping[str, str]) -> None:
        self.client, self.files = client, files
        self.templates: dict[str, Template] = {}
        self.info = NodeInfo({}, client.url)

    def check(self, roles: Mapping[str, int], relation: str, groups: list[tuple[str, ...]]) -> None:
        """See `request.Engine.check`: templates first, then the server; nothing is queued."""
        faults, self.templates, info = [], {}, None
        for role, images in roles.items():
            try:
                self.templates[role] = read_template(template_file(self.files[role]), images)
            except ValueError as error:
                faults.append(f"{OPTIONS[role]}: {error}")
        try:
            version = self.client.check().get("system", {}).get("comfyui_version", "unknown version")
            server = f"ComfyUI at {self.client.url} (version {version})"
            self.info = info = NodeInfo(self.client.connection.json("GET", "/object_info"), server)
        except ComfyUIError as error:
            faults.append(f"--server: {error}")
        if info is not None:
            faults += [fault for template in self.templates.values() for fault in info.faults(template)]
        if faults:
            raise UserErrors(list(dict.fromkeys(faults)))

    @property
    def facts(self) -> dict[str, Any]:
        """See `request.Engine`."""
        files = [file for template in self.templates.values() for file in licences.models_of(template.graph)]
        models = licences.origin_models(files)
        hashes = [template.sha256 for _, template in sorted(self.templates.items())]
        return {
            "engine": "comfyui",
            "template_sha256": hashes[0] if len(set(hashes)) == 1 else f"{text_hash(' '.join(hashes)):016x}",
            "templates": {
                role: {"file": template.path.name, "sha256": template.sha256}
                for role, template in sorted(self.templates.items())
            },
            "models": models,
            "licence": licences.joined_licence(models),
        }

    def key(self, request: Request) -> str:
        """See `request.Engine.key`: hash of the filled template and of the bytes of its pictures."""
        pictures = {number: file_sha256(path) for number, path in enumerate(request.images, 1)}
        return graph_hash(self.templates[request.role].filled(request, pictures))

    def draw(self, request: Request) -> bytes:
        """See `request.Engine.draw`."""
        template = self.templates[request.role]
        uploaded = {number: self.client.upload(path) for number, path in enumerate(request.images, 1)}
        graph = template.filled(request, uploaded)
        if surplus := template.surplus(len(request.images)):
            graph = remove_nodes(graph, surplus, self.info.required)
        (output,) = template.places["output"]
        if output not in graph:
            raise ValueError(
                f"{template.path}: nothing is left of the graph without its places for pictures beyond "
                f"{len(request.images)}; connect them through optional inputs, or use another template."
            )
        return self.client.run(graph, [output]).pictures[0]

    def caption(self, scene: Scene) -> str:
        """See `request.Engine.caption`: the wording's stands."""
        return ""


def template_file(name: str, ending: str = ".json") -> Path:
    """Find the file of a template, or of a shipped one by its name."""
    shipped = SHIPPED / f"{name}{ending}"
    return shipped if shipped.is_file() else Path(name)
