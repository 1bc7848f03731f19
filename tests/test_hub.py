"""Models of the hub: found by name, pinned by commit, taken from the cache, refused in words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import yaml
from conftest import save_classes, shaded
from use_hub import TOKEN, SmallHub
from use_toys import save_pictures

from faceattr.cli import main
from faceattr.data.sources import without_folders
from faceattr.exporting.push import model_card, push
from faceattr.files import install_command
from faceattr.images.crop import CropRule
from faceattr.inference.predictor import FaceAttributes
from faceattr.model import file as model_file
from faceattr.model import hub
from faceattr.model.build import build
from faceattr.tasks import EXPRESSION, GENDER, Task
from faceattr.training.config import Network
from faceattr.training.network import resolved

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs faceattr[hub]")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def small_hub(tmp_path, monkeypatch):
    """A hub on loopback, with an empty cache and a token."""
    small = SmallHub(private=("someone/secret",))
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, small.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", small.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.fetch.cache_clear()
    yield small
    small.end()
    hub.fetch.cache_clear()


@pytest.fixture
def content(toy_model_path):
    return toy_model_path.read_bytes()


def refusal(capsys, *words):
    """What a command says that ends with 2."""
    assert main(list(map(str, words))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf://user/model", ("user/model", None, "main")),
        ("hf://user/model@v1.0", ("user/model", None, "v1.0")),
        ("hf://user/model/a/b.keras@refs/pr/1", ("user/model", "a/b.keras", "refs/pr/1")),
        (os.fspath(Path("hf://user/model")), ("user/model", None, "main")),
    ],
)
def test_a_name_is_taken_apart(name, parts):
    assert hub.is_hub_name(name) and hub.HubName.parse(name) == hub.HubName(*parts)


@pytest.mark.parametrize("name", ["hf://user", "hf://u/m/weights.pkl", "hf://a b/c", "hf://u/m@"])
def test_another_name_is_refused_with_the_way_to_write_it(name):
    with pytest.raises(ValueError, match="is written hf://user/model"):
        hub.HubName.parse(name)
    assert not hub.is_hub_name("faces.keras") and not hub.is_hub_name("http://x/y")


def test_a_model_of_the_hub_answers_and_tells_its_commit(small_hub, content, toy_model_path):
    commit = small_hub.commit("user/moods", model__keras=content, evil__pkl=b"no", README__md=b"#")
    attributes = FaceAttributes.load("hf://user/moods", "none", engine="keras")
    assert attributes.tasks == (EXPRESSION, GENDER)
    assert attributes.path.read_bytes() == content
    origin = f"hf://user/moods/model.keras@{commit}"
    assert hub.origin_of(attributes.path) == origin == hub.pinned("hf://user/moods")
    assert hub.origin_of(toy_model_path) is None and hub.pinned("shipped") == "shipped"
    assert attributes.__reduce__()[0].keywords["model"] == origin
    fetched = [path for path in small_hub.asked if "/resolve/" in path and path.startswith("GET")]
    assert fetched == [f"GET /user/moods/resolve/{commit}/model.keras"]


def test_a_revision_stays_while_main_moves_on(small_hub, content):
    first = small_hub.commit("user/moods", model__keras=content)
    small_hub.commit("user/moods", model__keras=b"another")
    assert model_file.path_of(f"hf://user/moods@{first}").read_bytes() == content
    assert model_file.path_of("hf://user/moods").read_bytes() == b"another"


def test_with_a_filled_cache_no_network_is_asked(small_hub, content, monkeypatch):
    commit = small_hub.commit("user/moods", model__keras=content)
    path = model_file.path_of("hf://user/moods")
    small_hub.end()
    hub.fetch.cache_clear()
    assert model_file.path_of("hf://user/moods") == path  # the hub cannot be reached
    for offline, how in ((True, {}), (False, {"offline": True})):
        hub.fetch.cache_clear()
        small_hub.asked.clear()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        assert model_file.path_of("hf://user/moods", **how) == path
        assert model_file.path_of(f"hf://user/moods@{commit}", **how) == path
        assert small_hub.asked == []


def test_refusals_are_one_sentence_and_code_2(small_hub, content, capsys, tmp_path, monkeypatch):
    small_hub.commit("user/empty", weights__pkl=b"no")
    small_hub.commit("user/two", a__keras=content, b__keras=content)
    small_hub.commit("someone/secret", model__keras=content)
    label = ["label", tmp_path, "-o", tmp_path / "t.csv", "--detector", "none", "--model"]
    assert "shows no model user/none" in refusal(capsys, *label, "hf://user/none")
    assert "no revision v9 of it" in refusal(capsys, *label, "hf://user/two@v9")
    assert "holds no .keras file" in refusal(capsys, *label, "hf://user/empty")
    assert "say which, like hf://user/two/a.keras" in refusal(capsys, *label, "hf://user/two")
    assert "holds no c.keras" in refusal(capsys, *label, "hf://user/two/c.keras")
    assert "is written hf://user/model" in refusal(capsys, *label, "hf://user")
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "hf auth login" in refusal(capsys, *label, "hf://someone/secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached, or is not" in refusal(capsys, *label, "hf://user/moods")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert f"`{install_command('hub')}` installs" in refusal(capsys, *label, "hf://user/new")


def test_a_hub_that_is_not_there_is_told(small_hub, capsys, tmp_path):
    small_hub.end()
    said = refusal(capsys, "evaluate", "hf://user/moods", tmp_path, "-o", tmp_path / "r")
    assert "the cache has not got it" in said


def test_code_in_a_model_of_the_hub_is_not_run(small_hub, tmp_path):
    crops = keras.Input((48, 48, 3), dtype="uint8")
    x = keras.layers.Lambda(lambda v: __import__("os").getpid() + v * 1.0)(crops)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(crops, {"gender": keras.layers.Dense(2, "softmax", name="gender")(x)})
    model_file.save(model, model_file.Description((GENDER,), CropRule()), tmp_path / "l.keras")
    small_hub.commit("user/evil", model__keras=(tmp_path / "l.keras").read_bytes())
    with pytest.raises(ValueError, match=r"is damaged or of another Keras: .*ambda"):
        FaceAttributes.load("hf://user/evil", "none", engine="keras")


def test_a_table_tells_the_commit_of_its_model(small_hub, content, tmp_path, capsys):
    commit = small_hub.commit("user/moods", model__keras=content)
    pictures, table = save_pictures(tmp_path / "in", 2), tmp_path / "t.csv"
    model = ["--model", "hf://user/moods", "--detector", "none"]
    assert main(["label", str(pictures), "-o", str(table), *model]) == 0
    about = json.loads((tmp_path / "t.csv.about.json").read_text())
    assert about["settings"]["model"]["hub"] == f"hf://user/moods/model.keras@{commit}"


def test_a_training_starts_from_the_commit_that_the_name_means_now(small_hub, content):
    commit = small_hub.commit("user/moods", model__keras=content)
    network = resolved(Network("hf://user/moods"))
    assert network.weights == f"hf://user/moods/model.keras@{commit}"
    assert resolved(network) == network
    assert without_folders(network.weights) == network.weights


def test_a_copy_is_not_put_into_the_cache(small_hub, content, capsys):
    small_hub.commit("user/moods", model__keras=content)
    said = refusal(capsys, "export", "hf://user/moods", "--embed")
    assert "lies in the hub's cache, which stays as it is: give -o" in said


# ---- push


def test_a_model_is_pushed_with_its_card_and_comes_back(small_hub, toy_model_path, capsys):
    assert main(["push", str(toy_model_path), "user/moods"]) == 0
    commit, files = small_hub.find("user/moods", "main")
    said = capsys.readouterr().out
    assert f"{small_hub.url}/user/moods: load it as hf://user/moods@{commit}" in said
    assert files["model.keras"] == toy_model_path.read_bytes()
    assert files["README.md"].startswith(b"---\n")
    assert model_file.path_of("hf://user/moods").read_bytes() == files["model.keras"]


def test_a_card_that_is_there_is_left_alone_unless_that_is_asked_for(
    small_hub, toy_model_path, tmp_path, capsys
):
    small_hub.commit("user/moods", README__md=b"by hand")
    assert not push(toy_model_path, "user/moods").with_card
    assert small_hub.find("user/moods", "main")[1]["README.md"] == b"by hand"
    (tmp_path / "card.md").write_text("mine")
    done = push(toy_model_path, "user/moods", card=tmp_path / "card.md", overwrite_card=True)
    assert done.with_card
    assert small_hub.find("user/moods", "main")[1]["README.md"] == b"mine"
    assert main(["push", str(toy_model_path), "user/moods"]) == 0
    assert "left alone" in capsys.readouterr().out


def test_what_keeps_a_push_from_writing_is_told(small_hub, toy_model_path, capsys, monkeypatch):
    small_hub.private = ("user/moods",)
    here = ["push", toy_model_path]
    assert "There is no card none.md" in refusal(capsys, *here, "user/moods", "--card", "none.md")
    assert "is written hf://user/model" in refusal(capsys, *here, "moods")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids" in refusal(capsys, *here, "user/moods")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "does not take this token" in refusal(capsys, *here, "user/moods")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "cannot be written without a token" in refusal(capsys, *here, "user/moods")


def header_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_s_header_is_what_the_hub_reads():
    score = {"n": 120, "accuracy": 0.91234, "balanced_accuracy": 0.9, "macro_f1": 0.89}
    score |= {"calibration_error": 0.02, "interval": [0.85, 0.95], "split": "val"}
    description = model_file.Description(
        (Task("mood", ("<i>calm", "wild")), GENDER),
        CropRule(),
        scores={"mood": score},
        provenance={"sources": ["mood=my pictures", "fer2013/manifest.csv"], "by": "faceattr"},
        licence="for lessons only",
    )
    card = model_card("moods", "user/moods", description)
    header = header_of(card)
    assert header["library_name"] == "keras" and {"faceattr", "mood"} <= set(header["tags"])
    assert (header["license"], header["license_name"]) == ("other", "for-lessons-only")
    assert header["datasets"] == ["my-pictures", "fer2013"]
    (index,) = header["model-index"]
    metrics = {m["type"]: m["value"] for r in index["results"] for m in r["metrics"]}
    assert metrics["accuracy"] == 0.9123 and metrics["f1"] == 0.89
    assert "| mood | 120 | 91.2% |" in card and "<i>" not in card
    assert 'load("hf://user/moods")' in card
    assert "has no figures of gender" in card and "no figures of mood" not in card


@pytest.mark.parametrize(
    ("terms", "word"), [("MIT", "mit"), ("not stated", "unknown"), ("CC-BY-4.0", "cc-by-4.0")]
)
def test_known_terms_have_the_hub_s_own_word(terms, word):
    description = model_file.Description((GENDER,), CropRule(), licence=terms)
    header = header_of(model_card("m", "u/m", description))
    assert header["license"] == word and "license_name" not in header
    assert "model-index" not in header and "datasets" not in header


def test_the_shipped_model_has_a_card_too():
    description = model_file.describe(model_file.shipped_model())
    card = model_card("faceattr", "user/faceattr", description)
    results = header_of(card)["model-index"][0]["results"]
    scored = [result["dataset"]["config"] for result in results]
    assert scored == [task.name for task in description.tasks if task.name in description.scores]
    assert all(len(result["metrics"]) == 4 for result in results) and results
    for task in description.tasks:
        assert (f"no figures of {task.name}" in card) == (task.name not in scored)


@pytest.mark.slow
def test_the_environment_alone_says_where_the_hub_is(small_hub, content, tmp_path):
    small_hub.commit("user/moods", model__keras=content)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": small_hub.url}
    environment |= {"HF_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-m", "faceattr", "heads", "hf://user/moods"]
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout.splitlines()[1]) == (0, "gender: male, female"), run.stderr
    small_hub.end()
    run = subprocess.run(
        words, capture_output=True, text=True, env={**environment, "HF_HUB_OFFLINE": "1"}
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_a_model_is_trained_from_one_of_the_hub_and_says_from_which(small_hub, tmp_path):
    slim = tmp_path / "slim.keras"
    about = model_file.Description((GENDER,), CropRule(32), {"backbone": "vgg16-slim"})
    model_file.save(build([GENDER], weights=None, backbone="vgg16-slim"), about, slim)
    commit = small_hub.commit("user/slim", model__keras=slim.read_bytes())
    dark, light = ([shaded(level, seed) for seed in range(10)] for level in (60, 190))
    shades = save_classes(tmp_path / "shades", dark=dark, light=light)
    words = ["train", f"shade={shades}", "-o", str(tmp_path / "my.keras")]
    words += ["--weights", "hf://user/slim", "--epochs", "frozen=1,finetune=0"]
    assert main([*words, "--cache", str(tmp_path / "cache")]) == 0
    description = model_file.describe(tmp_path / "my.keras")
    assert description.provenance["weights"] == f"hf://user/slim/model.keras@{commit}"
    assert description.crop == CropRule(32) and description.network["backbone"] == "vgg16-slim"
