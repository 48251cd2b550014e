"""Drawing a benchmark's pictures with this pack's own engines, so that a table can be made again.

`settings` how pictures are drawn, `jobs` what is to be drawn and what is there, `manifest` what they depend on,
`graphs` a job as a graph of ComfyUI, `engines` who draws, `draw` the loop, `command` is `relationbench run`.
"""
