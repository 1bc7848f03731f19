"""Recipes in TOML files."""

from pathlib import Path

import pytest

from faceattr import cli
from faceattr.cli.recipe import read_recipe, read_recipes
from faceattr.cli.train import add_options


def options(parser):
    parser.add_argument("--combine", choices=("sum", "log"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--resume", action="store_true")


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "ways.toml").write_text(text)
        return str(tmp_path / "ways.toml")

    return write


def test_an_empty_file_is_a_recipe_of_defaults(written):
    assert read_recipes(written(""), options) == {"ways": {}}


def test_a_section_stands_on_top_of_what_all_share(written):
    file = written('batch-size = 8\n[plain]\n[log]\ncombine = "log"\nbatch-size = 4')
    assert read_recipes(file, options) == {
        "plain": {"batch_size": 8},
        "log": {"batch_size": 4, "combine": "log"},
    }
    assert read_recipe(f"{file}:log", options) == {"batch_size": 4, "combine": "log"}


def test_true_is_an_option_without_a_value(written):
    assert read_recipe(written("resume = true"), options) == {"resume": True}


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("batch-size = ", "", "not a TOML file"),
        ("batch = 8", "", "unrecognized arguments: --batch=8"),
        ('[odd]\nbatch-size = "many"', "", r"ways.toml \[odd\]: argument --batch-size: invalid"),
        ('[odd]\ncombine = "product"', "", "invalid choice: 'product'"),
        ("[odd]\ncombine = {log = 1}", "", "combine is a text or a number"),
        ("[odd]\n[even]", ":third", "no recipe 'third'; it has odd, even"),
        ("[odd]\n[even]", "", "has recipes odd, even: name one"),
    ],
)
def test_what_cannot_be_meant_is_told(written, text, name, told):
    with pytest.raises(ValueError, match=told):
        read_recipe(written(text) + name, options)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recipe file"):
        read_recipes(str(tmp_path / "none.toml"), options)


def test_train_takes_a_recipe_and_what_is_typed_wins(written, monkeypatch):
    taken = {}
    monkeypatch.setattr(
        "faceattr.training.train.train", lambda sources, output, **given: taken.update(given)
    )
    monkeypatch.setattr("faceattr.cli.train.print_result", lambda result: None)
    file = written('batch-size = 8\nepochs = "frozen=1"\naugment = "flip=0"\nmargin = -0.1')
    typed = ["--recipe", file, "--batch-size", "4"]
    assert cli.main(["train", "mood=faces", "-o", "mood.keras", *typed]) == 0
    settings = taken["settings"]
    assert (settings.batch_size, settings.phases[0].epochs) == (4, 1)
    assert settings.augmentation.flip == 0 and taken["network"].crop.margin == -0.1


def test_the_shipped_model_s_recipe_can_be_read():
    file = Path(__file__).parent.parent / "weights/recipe.toml"
    recipes = read_recipes(str(file), add_options)
    assert recipes["first"]["weights"] == "none"
    assert recipes["second"]["norm"] == "batch" and recipes["second"]["seed"] == 0


@pytest.mark.parametrize(
    ("old", "new", "parsed"),
    [
        (
            'first = "whole=block3_conv1"',
            "unfreeze-from",
            {"unfreeze_from": {"whole": "block3_conv1"}},
        ),
        ('rate = "whole=0.012"', "learning-rate", {"learning_rate": {"whole": 0.012}}),
        ('branch-rates = "mood=0.1"', "learning-rate", {"learning_rate": {"mood": 0.1}}),
        ("copies = 2", "augment-repeats", {"augment_repeats": 2}),
        ('trunk = "vgg16-slim"', "backbone", {"backbone": "vgg16-slim"}),
        ('tap = "mood=block2_pool"', "feature-layer", {"feature_layers": {"mood": "block2_pool"}}),
        ("tie = 0.1", "sharing-strength", {"sharing_strength": 0.1}),
    ],
)
def test_options_by_their_old_names_go_on_with_a_hint(written, capsys, old, new, parsed):
    assert read_recipe(written(old), add_options) == parsed
    assert f"is called --{new} now" in capsys.readouterr().err


def test_every_option_of_a_run_is_a_field_and_tells_its_default(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for option, default in (("batch-size", 64), ("dropout", 0.5), ("augment-repeats", 4)):
        assert f"--{option}" in told and f"(default: {default})" in told


def test_rates_of_a_recipe_and_typed_ones_add_up_by_phase_and_branch(written, monkeypatch, capsys):
    taken = {}
    monkeypatch.setattr(
        "faceattr.training.train.train", lambda sources, output, **given: taken.update(given)
    )
    monkeypatch.setattr("faceattr.cli.train.print_result", lambda result: None)
    text = 'weights = "none"\nrate = "scratch=0.02"\n[own]\nlearning-rate = "backbone=1e-4"'
    typed = ["--recipe", f"{written(text)}:own", "--lr", "backbone=5e-5"]
    assert cli.main(["train", "mood=faces", "-o", "mood.keras", *typed]) == 0
    (phase,) = taken["settings"].phases
    assert (phase.learning_rate, phase.branch_rates) == (0.02, {"backbone": 5e-5})


def test_an_old_name_is_told_once_however_many_sections_have_it(written, capsys):
    text = "copies = 3\n[one]\ncopies = 2\n[two]\ncopies = 1\nrate = 'frozen=0.1'"
    assert read_recipes(written(text), add_options)["two"]["augment_repeats"] == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in told] == ["--copies", "--rate"]


def test_an_option_by_phase_says_how_it_is_typed(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "mood=photos", "-o", "mood.keras", "--epochs", "3"])
    assert "argument --epochs: expected frozen=3,finetune=3 (by phase)" in capsys.readouterr().err
