"""The shipped model's card says what was measured of this very file."""

import hashlib
import json

import pytest
from bench.card import BEGIN, CARD, END, FIGURES, render


@pytest.fixture(scope="module")
def figures():
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_figures_are_of_the_file_that_ships(figures):
    shipped = CARD.with_name("faceattr.keras").read_bytes()
    assert figures["model"]["sha256"] == hashlib.sha256(shipped).hexdigest()


def test_the_card_has_the_figures_that_the_command_wrote(figures):
    written = CARD.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()
    assert written == render(figures)
    assert len(figures["sets"]) == 6
