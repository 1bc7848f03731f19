"""`faceattr label https://…`: addresses among the inputs, where that is allowed."""

from http.server import BaseHTTPRequestHandler

import pandas
import pytest
from PIL import Image
from use_loopback import website
from use_toys import attributes, draw, encoded

from faceattr.cli import main
from faceattr.images.inputs import Inputs
from faceattr.inference.artifacts import Artifacts
from faceattr.inference.label import label_to


@pytest.fixture(scope="module")
def address():
    """Where every ``/N.png`` shows N faces; whatever else is asked for is not there."""

    class Faces(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.strip("/").partition("?")[0].removesuffix(".png")
            self.send_response(200 if name.isdigit() else 404)
            self.end_headers()
            if name.isdigit():
                self.wfile.write(encoded(draw(int(name))))

    with website(Faces) as known:
        yield known


def job(tmp_path, inputs, **how):
    table = tmp_path / "faces.csv"
    label_to(table, inputs, attributes(), **how)
    return pandas.read_csv(table)


def test_nothing_is_fetched_unless_it_is_allowed(address, tmp_path, capsys):
    place, asked = address
    with pytest.raises(ValueError, match=r"is an address.*--allow-urls.*allow_urls=True"):
        Inputs(f"{place}/1.png")
    assert main(["label", f"{place}/1.png", "-o", str(tmp_path / "a.csv")]) == 2
    assert "--allow-urls" in capsys.readouterr().err
    (tmp_path / "list.txt").write_text(f"{place}/1.png\n")
    table = job(tmp_path, tmp_path / "list.txt")
    assert table["status"].tolist() == ["unreadable"] and "--allow-urls" in table["reason"][0]
    assert asked == []


def test_addresses_are_labelled_like_files(address, tmp_path):
    place, _ = address
    Image.fromarray(draw(2)).save(tmp_path / "two.png")
    (tmp_path / "list.txt").write_text(f"{place}/3.png?size=large\n{tmp_path}/two.png\n")
    inputs = [f"{place}/2.png", tmp_path / "list.txt", f"{place}/none.png", f"{place}/2.png"]
    table = job(tmp_path, inputs, allow_urls=True)
    by_path = {path: rows for path, rows in table.groupby("path", sort=False)}
    assert list(by_path) == [
        f"{place}/2.png",
        f"{place}/3.png?size=large",
        f"{tmp_path}/two.png",
        f"{place}/none.png",
    ]
    fetched, lying = by_path[f"{place}/2.png"], by_path[f"{tmp_path}/two.png"]
    columns = table.columns.drop("path")
    assert fetched[columns].to_csv(index=False) == lying[columns].to_csv(index=False)
    assert len(by_path[f"{place}/3.png?size=large"]) == 3
    assert "404" in by_path[f"{place}/none.png"]["reason"].item()


def test_a_job_with_addresses_goes_on_where_it_was_stopped(address, tmp_path):
    place, asked = address
    inputs = [f"{place}/1.png", f"{place}/2.png"]
    whole = job(tmp_path, inputs, allow_urls=True)
    asked.clear()
    assert job(tmp_path, inputs, allow_urls=True, resume=True).equals(whole) and asked == []


def test_addresses_that_a_path_would_not_tell_apart_are_gone_on_with_as_they_stand(
    address, tmp_path
):
    place, _ = address
    some = [f"{place}/1.png", f"{place}//1.png", f"{place}/1.png/", f"{place}/x/../1.png"]
    job(tmp_path, some[:1], allow_urls=True)
    table = job(tmp_path, some, allow_urls=True, resume=True)
    assert table["path"].tolist() == some


def test_copies_of_what_was_fetched_are_left_beside_the_table(address, tmp_path):
    place, asked = address
    asked.clear()
    names = {"crops": tmp_path / "crops", "annotated": tmp_path / "drawn"}
    artifacts = Artifacts(**names, gallery=tmp_path / "page.html")
    table = job(tmp_path, f"{place}/2.png", allow_urls=True, artifacts=artifacts)
    assert table["status"].tolist() == ["ok", "ok"]
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == 2
    assert len(list((tmp_path / "drawn").rglob("*.png"))) == 1
    assert asked == ["/2.png"] * 2  # once more for the page


def test_a_page_of_addresses_shows_their_faces_and_leads_to_them(address, tmp_path):
    place, _ = address
    page = tmp_path / "page.html"
    job(tmp_path, f"{place}/2.png", allow_urls=True, artifacts=Artifacts(gallery=page))
    text = page.read_text()
    assert f'<a href="{place}/2.png"' in text and "<em>gone</em>" not in text
    assert text.count("data:image/jpeg") >= 2
    assert '"correctable": true' not in text  # a manifest names files


def test_a_video_is_not_fetched(address, tmp_path):
    place, _ = address
    (found,) = Inputs(f"{place}/clip.mp4", allow_urls=True)
    assert not found.is_video and found.is_url


def test_the_command_fetches_what_is_typed(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("faceattr.cli.label.open_attributes", lambda *given: attributes())
    place, _ = address
    assert main(["label", f"{place}/2.png", "--allow-urls"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3 and printed[1].startswith(f"{place}/2.png,ok,")
    table = tmp_path / "a.csv"
    assert main(["label", f"{place}/2.png", "--allow-urls", "-o", str(table), "--quiet"]) == 0
    assert pandas.read_csv(table)["status"].tolist() == ["ok", "ok"]
