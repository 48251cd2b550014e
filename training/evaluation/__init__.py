"""RelationBench's measurements on any folder of pictures; `python -m training.evaluate` is the door.

`prompts` reads what was asked for, `relationbench` writes it for subjects of one's own, `predicate_parser` finds the
relation in a prompt, `scores` computes (vectors in, numbers out), `report` and `sheet` write what people read. The
encoders are opened at `training/host_diffusers/embedders.py`.
"""
