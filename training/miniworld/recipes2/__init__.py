"""Recipes that train the second world's models; they replace `recipes/` in the commit that ships their weights.

`packed_images` pictures on disk · `corpus`, `labelled_scenes` what is trained on · `autoencoder`, `classifiers`, … one
recipe each · `schedule`, `train_all` all of them in order, within a budget of minutes.
"""
