"""Train the miniworld's models.

`packed_images` pictures on disk · `corpus`, `labelled_scenes`, `encoded_corpus` training data · `autoencoder`,
`contrastive`, `local_encoder`, `denoiser`, `decoder`, `flux`, `classifiers`, `detector` one recipe each · `stages`,
`train_all` all of them in order, within a budget of minutes · `export`, `warm_start` to the shipped files and back.
"""
