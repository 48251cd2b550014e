"""Subject-Diffusion on ComfyUI's UNets, through its own patch slots: middle patches, input patches, weight patches."""
