"""Public prompt sets, read from the files the user has into prompts files; nothing is downloaded.

`people`, `edits`, `subjects` and `msbench` read one format each function; `catalogue` lists them with their licences;
`lines` checks files, takes subsets and writes; `command` is `python -m training.evaluate convert`.
"""
