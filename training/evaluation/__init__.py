"""RelationBench's measurements on any folder of pictures, for `python -m training.evaluate`.

`prompts` reads prompts files, `relationbench` writes them for a user's subjects, `predicate_parser` finds the relation
in a prompt, `scores` computes (vectors in, numbers out), `report` and `sheet` write tables and pictures. The encoders
are opened at `training/host_diffusers/embedders.py`.
"""
