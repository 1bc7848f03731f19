"""Files in folders and in an object store, and the inputs of a job in both."""

import os
from http.server import BaseHTTPRequestHandler

import pandas as pd
import pytest
from pyarrow.lib import ArrowException
from use_loopback import website
from use_store import keys, s3, upload
from use_toys import save_pictures

from faceattr.images.inputs import Inputs
from faceattr.inference import storage
from faceattr.inference.storage import Places


@pytest.fixture(scope="module")
def bucket():
    with s3() as place:
        yield place


@pytest.fixture(params=["folder", "store"])
def place(request, tmp_path, bucket):
    """Somewhere to write, empty."""
    if request.param == "folder":
        return str(tmp_path / "here")
    return f"{bucket}/{tmp_path.name}"


def names(places):
    return [file.path for file in places]


def test_a_place_that_is_not_there_is_empty(place):
    assert storage.entries(place) == [] and storage.kind_of(place) == ""
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*none'"):
        storage.read(storage.join(place, "none"))
    storage.delete(storage.join(place, "none"))


def test_what_is_written_is_there_under_its_own_name(place):
    odd = storage.join(place, "sub/a b?c%20 [1].jpg")
    storage.write(odd, b"one")
    storage.write(odd, b"two")
    assert storage.read(odd) == b"two" and storage.kind_of(odd) == "file"
    assert storage.entries(place) == [("sub", True)]
    assert storage.entries(storage.join(place, "sub")) == [("a b?c%20 [1].jpg", False)]
    storage.delete(odd)
    assert storage.kind_of(odd) == ""


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    storage.write(str(tmp_path / "a"), b"one")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match=r"a cannot be written: No space\.$"):
        storage.write(str(tmp_path / "a"), b"two")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"one"


def test_what_a_store_refuses_is_one_sentence(bucket):
    with pytest.raises(OSError) as told:
        storage.write("s3://nowhere/photos/x", b"x")
    said = str(told.value)
    assert said.startswith("s3://nowhere/photos/x cannot be written: ") and "rights" in said
    assert "NO_SUCH_BUCKET" in said and "Request ID" not in said and "\n" not in said
    with pytest.raises(ValueError, match=r"abc://x cannot be opened: .* reads folders, s3://"):
        storage.read("abc://x/y")


def test_what_azure_says_without_an_identity_is_one_sentence(monkeypatch):
    class NoIdentity:
        def get_file_info(self, path):
            raise ArrowException(
                "Unknown error: Check for 'https://x.blob.core.windows.net/photos' failed: "
                "N5Azure4Core11Credentials23AuthenticationExceptionE: Failed to get token.\n"
                "See Azure::Core::Diagnostics::Logger for details (https://aka.ms/azsdk)."
            )

    monkeypatch.setattr(storage, "_opened", lambda place, **_: (NoIdentity(), place))
    with pytest.raises(OSError) as told:
        storage.kind_of("abfs://photos@x.dfs.core.windows.net/a")
    assert str(told.value) == (
        "abfs://photos@x.dfs.core.windows.net/a cannot be looked at: Check for "
        "'https://x.blob.core.windows.net/photos' failed: Failed to get token; see its name, and "
        "the rights of this machine's account."
    )


def test_azure_is_opened_by_adlfs_where_it_is_installed(monkeypatch):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    opened = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "adlfs" or None)
    monkeypatch.setattr(
        fsspec.core, "url_to_fs", lambda root: (MemoryFileSystem(), opened.append(root) or "/in")
    )
    storage._of_root.cache_clear()
    storage.write("abfs://photos/a/x y.jpg", b"one")
    assert storage.read("abfs://photos/a/x y.jpg") == b"one" and opened == ["abfs://photos"]
    storage._of_root.cache_clear()


@pytest.fixture
def kept_store():
    """A store that fsspec opens: it keeps listings and its `find` goes deep, as those of adlfs."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Kept(MemoryFileSystem):
        protocol, store, pseudo_dirs = "kept", {}, [""]

        def ls(self, path, detail=True, **how):
            if "locked" in path:
                raise PermissionError(13, "Permission denied", path)
            if path not in self.dircache:
                self.dircache[path] = super().ls(path, detail=True, **how)
            return self.dircache[path] if detail else [one["name"] for one in self.dircache[path]]

        def find(self, path, maxdepth=None, **how):
            return super().find(path, **how)

        def invalidate_cache(self, path=None):
            self.dircache.clear()

    fsspec.register_implementation("kept", Kept, clobber=True)
    yield "kept://in"
    storage._of_root.cache_clear()


def test_a_store_of_fsspec_is_listed_folder_by_folder_and_anew_for_each_job(kept_store):
    there = [f"{kept_store}/a.jpg", f"{kept_store}/sub/b.jpg", f"{kept_store}/sub/deep/c.jpg"]
    for place in there:
        storage.write(place, b"x")
    assert storage.entries(kept_store) == [("a.jpg", False), ("sub", True)]
    assert names(Places(kept_store)) == there
    store = storage._of_root(kept_store)[0].handler.fs
    (key,) = (key for key in store.store if key.endswith("sub/b.jpg"))
    store.store[key.replace("b.jpg", "new.jpg")] = store.store[key]  # by another program
    assert names(Places(kept_store)) == [*there, f"{kept_store}/sub/new.jpg"]
    assert storage.entries(f"{kept_store}/none") == []


def test_an_object_and_a_folder_of_one_name_are_two():
    class Store:
        def ls(self, path, detail):
            kinds = {"b/in/": "file", "b/in/photos": "file", "b/in/photos/": "directory"}
            return [{"name": name, "type": kind} for name, kind in kinds.items()]

    assert storage._listed(Store(), "b/in") == [("photos", False), ("photos", True)]


def test_a_folder_of_fsspec_that_cannot_be_listed_is_told(kept_store):
    storage.write(f"{kept_store}/locked/a.jpg", b"x")
    storage.write(f"{kept_store}/b.jpg", b"x")
    with pytest.raises(OSError, match="locked cannot be listed: Permission denied"):
        names(Places(kept_store))


def test_names_that_begin_with_a_slash_are_told(monkeypatch):
    import pyarrow.fs

    class Store:  # as pyarrow answers for an object "/a.jpg"
        def get_file_info(self, asked):
            folder = pyarrow.fs.FileInfo("bucket/", pyarrow.fs.FileType.Directory)
            return folder if isinstance(asked, str) else [folder]

    monkeypatch.setattr(storage, "_of_root", lambda root: (Store(), "bucket"))
    with pytest.raises(ValueError, match=r"s3://bucket has objects whose names begin with /"):
        Places("s3://bucket")


def test_folders_files_and_patterns_of_a_store_are_inputs(tmp_path, bucket):
    folder = save_pictures(tmp_path / "in", 3)
    (folder / "sub").mkdir()
    (folder / "sub/odd name%20.jpg").write_bytes(b"x")
    (folder / "notes.md").write_bytes(b"no picture")
    root = f"{bucket}/{tmp_path.name}"
    upload(folder, root)
    every = names(Places(root))
    assert every == [f"{root}/p00{n}.png" for n in range(3)] + [f"{root}/sub/odd name%20.jpg"]
    assert names(Places(f"{root}/p*.png")) == every[:3]
    assert names(Places(f"{root}/**/*.jpg")) == every[3:]
    assert names(Places([f"{root}/p001.png", root])) == [every[1], every[0], *every[2:]]
    assert Places(root).count == 4
    for nothing in (f"{root}/*.tif", f"{root}/none/*.png"):
        with pytest.raises(ValueError, match="There are no pictures in s3"):
            Places(nothing)
    for nothing in (f"{root}/none", "s3://nowhere/photos"):
        with pytest.raises(FileNotFoundError, match="There is nothing at s3"):
            Places(nothing)


def test_a_bucket_without_rights_is_one_sentence(monkeypatch):
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(403)
            self.end_headers()

        do_HEAD = do_PUT = do_POST = do_GET

    with website(Refuses) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with pytest.raises(OSError, match=r"cannot be .*(ACCESS_DENIED|403).*rights of this"):
            Places("s3://closed/photos")
        with pytest.raises(OSError, match=r"cannot be .*(ACCESS_DENIED|403).*rights of this"):
            storage.write("s3://closed/faces/x", b"x")


def test_local_inputs_are_those_of_a_job_on_one_machine(tmp_path, monkeypatch):
    folder = save_pictures(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("in/p002.png\n\nin\n")
    for given in (folder, "in", "in/*.png", "list.txt", ["in/p001.png", "in"]):
        assert names(Places(given)) == names(Inputs(given))
    with pytest.raises(FileNotFoundError, match="There is no file or folder none"):
        Places(["none", "in"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="There are no pictures in empty"):
        Places("empty")


def test_a_place_of_this_machine_may_be_written_as_an_address(tmp_path):
    folder = save_pictures(tmp_path / "two words", 2)
    listed = tmp_path / "list.txt"
    listed.write_text(f"file://{folder}/p000.png\n{folder.as_uri()}/p001.png\n")
    for kind in (Places, Inputs):
        for given in (f"file://{folder}", folder.as_uri(), f"local://{folder}", listed):
            assert names(kind(given)) == names(Inputs(folder))


def test_a_list_in_a_store_may_be_one_of_powershell(bucket):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        listed = "/in/größe 1.png\r\n/in/a\u2028b.png\r\n".encode(encoding)
        storage.write(f"{bucket}/list.txt", listed)
        assert names(Places(f"{bucket}/list.txt")) == ["/in/größe 1.png", "/in/a\u2028b.png"]


def test_a_manifest_names_inputs_anywhere(tmp_path, bucket):
    paths = ["in/p0.png", "in/p0.png", "/whole/p1.png", "s3://bucket/x.png"]
    table = pd.DataFrame({"path": paths, "gender": "male"})
    table.to_csv(tmp_path / "m.csv", index=False)
    table.to_parquet(tmp_path / "m.parquet")
    for suffix in (".csv", ".parquet"):
        found = names(Places(tmp_path / f"m{suffix}"))
        assert found == [str(tmp_path / "in/p0.png"), *paths[2:]]
    storage.write(f"{bucket}/lists/m.csv", b"path\n./a.png\n\n../b.png\nhttp://x/c.png\n")
    storage.write(f"{bucket}/lists/l.txt", b"s3://bucket/lists/m.csv\ns3://bucket/x.png\n")
    found = ["s3://bucket/lists/a.png", "s3://bucket/b.png", "http://x/c.png"]
    assert names(Places(f"{bucket}/lists/m.csv")) == found
    assert keys()[-2:] == ["lists/l.txt", "lists/m.csv"] or "lists/l.txt" in keys()
    (tmp_path / "no.csv").write_text("file,gender\na.png,male\n")
    with pytest.raises(ValueError, match=r"no column path.*Received: file, gender"):
        Places(tmp_path / "no.csv")
    for content in (b'path\n"' + b"x" * 200_000, b"path\n\xff\xfe.png\n"):
        (tmp_path / "odd.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd.csv is not a readable CSV file: "):
            list(Places(tmp_path / "odd.csv"))
    named = {"path": [b"in/p0.png", b"in/l\xfct.png"]}
    pd.DataFrame(named).to_parquet(tmp_path / "bytes.parquet")
    (tmp_path / "spelled.csv").write_text("path\nin/p0.png\nin/l\\xfct.png\n")
    found = [str(tmp_path / "in/p0.png"), os.fsdecode(os.fsencode(tmp_path) + b"/in/l\xfct.png")]
    for name in ("bytes.parquet", "spelled.csv"):
        assert [file.path for file in Places(tmp_path / name)] == found
    pd.DataFrame({"path": [1, 2]}).to_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match=r"path of .*numbers.parquet has names as text. Received"):
        Places(tmp_path / "numbers.parquet")
    (tmp_path / "no.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        Places(tmp_path / "no.parquet")


def test_a_store_is_not_for_a_job_on_one_machine():
    with pytest.raises(ValueError, match="--engine ray"):
        Inputs("s3://bucket/photos")


def test_what_a_killed_worker_leaves_is_read_by_nobody(tmp_path, monkeypatch):
    def killed(part, path):
        raise KeyboardInterrupt

    table = pd.DataFrame({"face": [0, 1]}).to_parquet()
    storage.write(str(tmp_path / "out/part-1.parquet"), table)
    monkeypatch.setattr(storage, "replace_durably", killed)
    monkeypatch.setattr(storage.os, "unlink", lambda path: None)
    with pytest.raises(KeyboardInterrupt):
        storage.write(str(tmp_path / "out/part-1.parquet"), table)
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert len(pd.read_parquet(tmp_path / "out")) == 2
