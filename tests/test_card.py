"""The shipped models' cards say what was measured of these very files."""

import hashlib
import json

import pytest
from bench.card import (
    BEGIN,
    CARD,
    END,
    FIGURES,
    SLIM_CARD,
    SLIM_FIGURES,
    render,
    render_beside,
)

from faceattr.model.file import SHIPPED_FILES


@pytest.mark.parametrize("path", [FIGURES, SLIM_FIGURES], ids=SHIPPED_FILES)
def test_the_figures_are_of_the_file_that_ships(path):
    figures = json.loads(path.read_text(encoding="utf-8"))
    name = SHIPPED_FILES["shipped" if path == FIGURES else "shipped-slim"]
    shipped = CARD.with_name(name).read_bytes()
    assert figures["model"]["sha256"] == hashlib.sha256(shipped).hexdigest()
    assert len(figures["sets"]) == 6


@pytest.mark.parametrize("card", [CARD, SLIM_CARD], ids=SHIPPED_FILES)
def test_the_card_has_the_figures_that_the_command_wrote(card):
    large, small = (json.loads(path.read_text()) for path in (FIGURES, SLIM_FIGURES))
    written = card.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()
    assert written == (render(large) if card == CARD else render_beside(small, large))
