"""From an idea to raw pictures of triplets: scenes, prompts, engines that draw, and a store of the pictures.

`scenes` decides what each attempt shows and `wording` says it; `recipes` turn a scene into requests for single
pictures; an engine draws them (`engines/`: a running ComfyUI, diffusers, the miniworld); `picture_store` keeps each
under the hash of all that it depends on; `rounds` draws and annotates until enough triplets are accepted.
"""
