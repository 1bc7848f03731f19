from pathlib import Path

import pytest

from faceattr.training.config import FINETUNE, FROZEN, SCRATCH, Phase, Settings
from faceattr.training.optimizers import ConvolutionMuon, make_optimizer


def test_the_defaults_freeze_then_fine_tune_or_start_from_nothing():
    assert FROZEN.unfreeze_from is None
    assert FINETUNE.unfreeze_from == "block5_conv1"
    assert FINETUNE.learning_rate < FROZEN.learning_rate
    assert SCRATCH.norm_learns and not FINETUNE.norm_learns


def test_the_documented_defaults_are_the_ones():
    page = Path(__file__).parent.parent / "docs/finetune.md"
    cells = [line.split("|")[2:5] for line in page.read_text().splitlines() if "| `--" in line]
    epochs, rates, firsts, patience = ([cell.split()[0] for cell in row] for row in cells[:4])
    phases = (FROZEN, FINETUNE, SCRATCH)
    assert [int(cell) for cell in epochs] == [phase.epochs for phase in phases]
    assert [float(cell) for cell in rates] == [phase.learning_rate for phase in phases]
    assert firsts[1] == FINETUNE.unfreeze_from
    assert patience == [str(phase.patience or "never") for phase in phases]


def test_crop_sizes_take_equal_parts_of_the_epochs():
    phase = Phase("a", epochs=8, learning_rate=1, sizes=(2 / 3, 2 / 3, 5 / 6, 1))
    assert list(phase.size_stages(48)) == [(0, 4, 32), (4, 6, 40), (6, 8, 48)]
    assert list(phase.size_stages(48, first_epoch=5)) == [(5, 6, 40), (6, 8, 48)]
    assert list(phase.size_stages(48, first_epoch=8)) == []


def test_crops_are_shares_of_the_model_s_size_and_never_too_small_for_vgg16():
    assert {size for _, _, size in SCRATCH.size_stages(96)} == {64, 80, 96}
    assert {size for _, _, size in SCRATCH.size_stages(32)} == {32}


def test_without_sizes_the_model_s_own_is_used():
    assert list(Phase("a", epochs=3, learning_rate=1).size_stages(64)) == [(0, 3, 64)]


def test_the_rate_rises_and_falls_to_zero():
    rate = make_optimizer(Phase("a", 10, 0.5, warmup=0.1), 100)._learning_rate
    assert 0 < float(rate(0)) < 0.01
    assert float(rate(100)) == pytest.approx(0.5)
    assert float(rate(50)) == pytest.approx(0.25, rel=0.05)
    assert float(rate(1000)) == pytest.approx(0, abs=1e-6)


def test_a_phase_names_its_optimiser():
    assert isinstance(make_optimizer(SCRATCH, 10), ConvolutionMuon)
    with pytest.raises(ValueError, match="one of adam, muon"):
        Phase("a", 1, 1, optimizer="sgd")


@pytest.mark.parametrize(("epochs", "rate"), [(0, 1), (1, 0), (1, float("nan")), (1, float("inf"))])
def test_a_phase_needs_epochs_and_a_rate(epochs, rate):
    with pytest.raises(ValueError, match="at least one epoch and a rate above 0"):
        Phase("a", epochs, rate)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 2.5}, {"seed": 0.5}, {"batch_size": None}, {"augment_repeats": "4"}]
)
def test_what_is_counted_is_a_whole_number(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a whole number. Received: "):
        Settings((FROZEN,), **wrong)
    with pytest.raises(ValueError, match=r"epochs is a whole number\. Received: 2\.5"):
        Phase("a", 2.5, 1)


def test_a_task_that_weighs_nothing_is_refused():
    with pytest.raises(ValueError, match=r"weight above 0 .--weight., or its head never learns"):
        Settings((FROZEN,), loss_weights={"gender": 0, "age": 1})
