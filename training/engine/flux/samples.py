"""Sample pictures of a Flux-class model in training: the same seeds without and with the LoRA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...data.encoded_flux import NAMED, PLAIN, EncodedFlux
from ...diffusion.ddim import seeded_noise
from ...diffusion.flow import euler, shift_of
from ...host_diffusers import set_relation
from ...host_diffusers.images import decode_latents
from ..validation import SamplePictures
from .objective import FluxObjective
from .spec import FluxSpec


class FluxSamplePictures(SamplePictures):
    """Draws the first triplets' prompts with their references, with fixed seeds.

    A guidance-distilled base is called once per step. Elsewhere guidance is classifier-free: the negative side of
    FLUX.1 has no references, as DreamO's; that of FLUX.2 keeps them, as its pipeline.
    """

    objective: FluxObjective

    @classmethod
    def of_run(
        cls,
        spec: FluxSpec,
        objective: FluxObjective,
        crops: EncodedFlux,
        negative: tuple[Tensor, Tensor],
        device: torch.device,
    ) -> FluxSamplePictures:
        """Take the middle crops of a run's first triplets to the device, and draw them without the LoRA at once."""
        config = spec.config
        rows = torch.arange(0, len(spec.triplets) * config.data.crops, config.data.crops)[: config.samples.count]
        prompts = [triplet.prompt for triplet in spec.triplets[: len(rows)]]
        some = crops.take(rows).to(device)
        samples = cls(objective, some, None, prompts, negative, spec.base.parts.vae, config, spec.folder)
        samples.draw_without()
        return samples

    def _switch(self, enabled: bool) -> None:
        set_relation(self.objective.network.transformer, enabled)

    @torch.no_grad()
    def _render(self) -> Tensor:
        settings, crops, network = self.config.samples, self.crops, self.objective.network
        choice = NAMED if self.config.references.named else PLAIN
        height, width = crops.latents.shape[-2:]
        shift = self.config.flow.shift or shift_of(height * width // network.patch**2)
        network.transformer.eval()
        latents = [
            euler(self._velocity(row, choice), self._noise(row), settings.steps, shift) for row in range(len(crops))
        ]
        network.transformer.train()
        vae = self.load_vae().to(crops.latents.device)
        return decode_latents(vae, torch.cat(latents))

    def _noise(self, row: int) -> Tensor:
        latents = self.crops.latents
        return seeded_noise([self.config.samples.seed + row], latents.shape[1:]).to(latents.device)

    def _velocity(self, row: int, choice: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the guided prediction of one picture; pictures may have different numbers of references."""
        crops, network, guidance = self.crops, self.objective.network, self.config.samples.guidance
        count = int(crops.present[row].sum())
        references = [crops.references[row : row + 1, slot] for slot in range(count)]
        context, pooled = crops.context[row : row + 1, choice], crops.pooled[row : row + 1, choice]
        empty, empty_pooled = self.negative
        of_negative = references if network.axes == 4 else []

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            if network.distils_guidance or guidance == 1:
                return network(noisy, times, context, pooled, references, guidance)
            with_prompt = network(noisy, times, context, pooled, references).float()
            without = network(noisy, times, empty, empty_pooled, of_negative).float()
            return without + guidance * (with_prompt - without)

        return predict
