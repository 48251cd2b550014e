"""The miniworld's models as ComfyUI's own classes."""
