"""--no-filters: every attempt is accepted that nobody has decided on."""

import json

import pytest

from training.common.errors import UserErrors
from training.generate import accept_all


def test_people_s_decisions_stay_and_the_rest_is_accepted(tmp_path):
    for name in ("01-1", "02-1", ".part"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    (tmp_path / "decisions.json").write_text('{"02-1": "reject"}', encoding="utf-8")
    accept_all(tmp_path / "raw", tmp_path)
    assert json.loads((tmp_path / "decisions.json").read_text("utf-8")) == {"01-1": "accept", "02-1": "reject"}


def test_decisions_that_cannot_be_read_are_named_and_kept(tmp_path):
    (tmp_path / "decisions.json").write_text("[", encoding="utf-8")
    with pytest.raises(UserErrors, match="decisions.json: not JSON"):
        accept_all(tmp_path, tmp_path)
    assert (tmp_path / "decisions.json").read_text("utf-8") == "["
