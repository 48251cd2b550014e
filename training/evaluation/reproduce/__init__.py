"""Draw a benchmark's pictures with this pack's own engines, so that a table can be made again.

`settings`: how pictures are drawn; `jobs`: pictures to draw; `manifest`: everything they depend on; `graphs`: a job as
a graph of ComfyUI; `engines`: ComfyUI or diffusers; `draw`: the loop; `command`: `relationbench run`.
"""
