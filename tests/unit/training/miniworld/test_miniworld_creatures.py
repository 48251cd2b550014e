"""The pictures of creatures that come with the pack: of held-out identities, and drawn again to the same."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.miniworld.world.example_creatures import EXAMPLE_CREATURES, SIDE, write_creatures
from training.miniworld.world.traits import SPECIES

SHIPPED = Path(__file__).resolve().parents[4] / "models" / "miniworld" / "creatures"


def test_no_training_has_seen_them_and_every_species_is_there():
    assert all(creature.traits.held_out and creature.traits.distinct for creature in EXAMPLE_CREATURES)
    assert len({creature.name for creature in EXAMPLE_CREATURES}) == len(EXAMPLE_CREATURES)
    assert {creature.name.split("-")[0] for creature in EXAMPLE_CREATURES} == set(SPECIES)


def test_the_shipped_pictures_are_what_the_command_draws(tmp_path):
    """A renderer or PNG library of another version may round otherwise: a grey level or two."""
    drawn = write_creatures(tmp_path)
    assert sorted(path.name for path in drawn) == sorted(path.name for path in SHIPPED.iterdir())
    for path in drawn:
        ours, theirs = (np.asarray(Image.open(file).convert("RGB"), float) for file in (path, SHIPPED / path.name))
        assert ours.shape == (SIDE, SIDE, 3)
        assert np.abs(ours - theirs).mean() < 2, path.name
        assert (SHIPPED / path.name).stat().st_size < 16 * 1024
