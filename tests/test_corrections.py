"""Correct and repeat: what somebody marks in the gallery becomes labels for training."""

import json
import os
import sys
from pathlib import Path

import pandas
import pytest
from conftest import toy_network
from use_browser import Browser
from use_loopback import wait_for
from use_toys import attributes, save_pictures

from faceattr import cli
from faceattr.data.sources import read_source
from faceattr.images.inputs import path_of
from faceattr.inference.artifacts import Artifacts
from faceattr.inference.label import label_to
from faceattr.training import network as networks

pytestmark = pytest.mark.slow


@pytest.fixture
def browser(tmp_path):
    (tmp_path / "downloads").mkdir()
    where = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    with Browser(tmp_path / "no camera") as browser:
        browser.do("Browser.setDownloadBehavior", **where)
        yield browser
        assert not browser.errors


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A gallery in one folder of pictures in another, made from a third."""
    folder = save_pictures(tmp_path / "my, pictures & more", 14)
    if sys.platform == "linux":  # where a name may be any bytes
        os.rename(folder / "p001.png", os.fsencode(folder / "p001 ") + b"l\xfct \xc3\xa9.png")
    monkeypatch.chdir(tmp_path)
    extras = Artifacts(gallery="pages/page.html")
    label_to("table.csv", "my, pictures & more", attributes(), artifacts=extras)
    return tmp_path / "pages/page.html"


def show(browser, page):
    browser.do("Page.navigate", url=page.as_uri())
    browser.wait("document.readyState === 'complete' && !!document.querySelector('.face select')")


def choose(browser, face, task, text):
    """Pick an entry of one face's menu, as somebody would."""
    done = browser.ask(
        f"""(() => {{
          const menu = document.querySelector('[data-face="{face}"][data-task="{task}"] select');
          menu.value = [...menu.options].find((entry) => entry.text === {json.dumps(text)}).value;
          menu.dispatchEvent(new Event("change"));
          return true;
        }})()"""
    )
    assert done


def saved(browser, page):
    path = page.parent.parent / "downloads/corrections.csv"
    path.unlink(missing_ok=True)
    browser.click("save")
    wait_for(lambda: path.is_file() and path.stat().st_size)
    return path


def other(table, face, task, classes):
    return next(name for name in classes if name != table[task][face])


def test_marks_become_a_manifest_that_trains(browser, page, tmp_path, monkeypatch, capsys):
    table = pandas.read_csv(tmp_path / "table.csv")
    table = table[table["status"] == "ok"]
    first, second, third, fourth = table.index[:4]
    mood = other(table, first, "mood", ("calm", "wild", "odd"))
    show(browser, page)
    choose(browser, first, "mood", mood)
    choose(browser, second, "shade", other(table, second, "shade", ("dark", "light")))
    choose(browser, third, "mood", "not a face")
    choose(browser, fourth, "mood", "cannot tell")
    assert browser.ask("document.getElementById('count').textContent") == (
        "3 corrected, 1 not a face"
    )
    only_marked = pandas.read_csv(saved(browser, page), keep_default_na=False)
    assert only_marked["mood"].tolist() == [mood, "", "", ""]
    assert only_marked["status"].tolist() == ["corrected", "corrected", "not a face", "corrected"]
    assert only_marked["path"][0] == str(tmp_path / table["path"][first])
    assert only_marked.loc[0, ["x0", "y0", "x1", "y1"]].tolist() == (
        table.loc[first, ["x0", "y0", "x1", "y1"]].tolist()
    )
    browser.click("all")
    rethought = [face for face in table.index[4::2] if table["mood"][face] != mood]
    for face in rethought:
        choose(browser, face, "mood", mood)
    path = saved(browser, page)
    everything = pandas.read_csv(path, keep_default_na=False)
    assert len(everything) == len(table)
    expected = table["mood"].copy()
    expected[[third, fourth]], expected[[first, *rethought]] = "", mood
    assert everything["mood"].tolist() == expected.tolist()
    source = read_source(str(path))
    assert set(source.tasks) == {"mood", "shade"}
    assert len(source.examples) == len(table) - 1
    assert source.left_out["no label for any task"] == 1
    monkeypatch.setattr(networks, "new_model", lambda network, tasks, seed=0: toy_network(tasks))
    monkeypatch.setattr(networks, "finished_model", lambda network, trained, tasks: trained)
    train = ["train", str(path), "-o", "my.keras", "--cache", "cache", "--batch-size", "8"]
    assert cli.main([*train, "--tasks", "mood", "--epochs", "frozen=1,finetune=0"]) == 0
    assert f"{len(table) - 2} faces" in capsys.readouterr().out


def test_marks_outlive_the_page_and_paths_may_begin_at_its_folder(browser, page, tmp_path):
    show(browser, page)
    table = pandas.read_csv(tmp_path / "table.csv")
    face = table.index[table["status"] == "ok"][0]
    shade = other(table, face, "shade", ("dark", "light"))
    choose(browser, face, "shade", shade)
    show(browser, page)
    browser.ask("document.getElementById('paths').value = 'relative'")
    moved = saved(browser, page).rename(page.parent / "corrections.csv")
    (example,) = read_source(str(moved)).examples
    assert example.labels == {"shade": shade}
    assert example.path.resolve() == Path(path_of(str(tmp_path / table["path"][face])))
