"""Who draws: a running ComfyUI through a template of the user's, a diffusers pipeline, the miniworld's renderer."""
