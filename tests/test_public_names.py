import ast
import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import faceattr
from faceattr.data.sources import ReadingConfig, ReadingTasksSettings
from faceattr.inference.table import TableOptions, TableSettings


@pytest.mark.parametrize("name", faceattr.__all__)
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(faceattr, name)
    assert name in faceattr.__doc__
    assert not callable(value) or value.__doc__


def test_type_checkers_see_the_same_names():
    stub = ast.parse(Path(faceattr.__file__).with_suffix(".pyi").read_text())
    imports = (
        name for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names
    )
    given = (node.targets[0].id for node in stub.body if isinstance(node, ast.Assign))
    assert {*(name.asname for name in imports if name.asname), *given} == set(faceattr.__all__)


USER = """
import faceattr
import pandas

def one(path: str) -> faceattr.DescribedFace:
    return faceattr.FaceAttributes.load(detector="none")(path)[0]

def several(paths: list[str]) -> list[list[faceattr.DescribedFace]]:
    return faceattr.analyze(paths)

def table(paths: list[str]) -> pandas.DataFrame:
    return faceattr.analyze(paths, as_frame=True, model="m.keras")

def described(path: str) -> faceattr.Description:
    return faceattr.load_model(path)[1]

faceattr.nonsense
faceattr.analyze(3)
faceattr.FaceAttributes.load(thread=2)
"""


@pytest.mark.slow
def test_a_user_s_type_checker_knows_what_comes_and_what_is_wrong(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    how = ["--strict", "--ignore-missing-imports", "--cache-dir", str(tmp_path / "c")]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *how, "user.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(faceattr.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    wrong = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error" in line}
    assert wrong == {17, 18, 19}, checked.stdout


def test_unknown_names_are_told():
    with pytest.raises(AttributeError, match="no 'Trainer'"):
        faceattr.Trainer  # noqa: B018


@pytest.mark.parametrize(
    ("old", "new"), [("Spelling", "LabelMap"), ("Mix", "TaskSampling"), ("Adding", "NewHeads")]
)
def test_an_old_name_works_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"faceattr.{old} is called {new} now"):
        assert getattr(faceattr, old) is getattr(faceattr, new)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (lambda: faceattr.Network(trunk="vgg16-slim"), "backbone", "vgg16-slim"),
        (lambda: faceattr.Phase("a", 1, 0.1, first="backbone"), "unfreeze_from", "backbone"),
        (lambda: faceattr.Settings((faceattr.FROZEN,), copies=1), "augment_repeats", 1),
        (lambda: faceattr.NewHeads(("a=b",), judge=("c",)), "evaluate_on", ("c",)),
        (lambda: faceattr.CropRule(level=False), "align", False),
    ],
)
def test_an_old_argument_works_with_a_warning(make, name, value):
    with pytest.warns(DeprecationWarning, match=f"is called {name}= now"):
        assert getattr(make(), name) == value


def test_an_old_argument_of_a_function_works_with_a_warning(tmp_path):
    for function in (faceattr.train, faceattr.evaluate):
        with (
            pytest.warns(DeprecationWarning, match=r"\(spelling=\) is called label_map= now"),
            pytest.raises((ValueError, OSError)),
        ):
            function(str(tmp_path / "none"), str(tmp_path), spelling=faceattr.LabelMap())


def test_an_argument_that_never_was_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"^audit\(\) has no argument colour\."):
        faceattr.audit([], colour="red")
    with pytest.raises(
        TypeError, match=r"^train\(\) has no argument epochs. .*label_map.*, tasks.$"
    ):
        faceattr.train([], tmp_path / "a.keras", epochs=3)
    with pytest.raises(TypeError, match=r"^evaluate\(\) has no argument rule."):
        faceattr.evaluate("shipped-slim", [], rule=3)


def test_a_number_is_no_crop_rule_and_half_a_row_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"^A crop rule is a CropRule, such as CropRule\(48\). Re"):
        faceattr.audit(f"mood={tmp_path}", rule=48)
    with pytest.raises(ValueError, match=r"takes 1 row or more of each task. Received: 50.5$"):
        faceattr.export("shipped-slim", "saved_model", tmp_path / "a", rows=50.5)


def test_help_and_import_pay_for_neither_keras_nor_pandas():
    code = (
        "import sys, faceattr.cli\n"
        "try: faceattr.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'keras', 'tensorflow', 'pandas', 'cv2', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("set()\n")
    assert "label" in run.stdout and "train" in run.stdout


@pytest.mark.parametrize(
    ("settings", "record"), [(ReadingTasksSettings, ReadingConfig), (TableSettings, TableOptions)]
)
def test_named_arguments_are_the_fields_of_the_record_that_takes_them(settings, record):
    assert set(get_type_hints(settings)) == {field.name for field in dataclasses.fields(record)}


def test_no_public_function_takes_arguments_that_nobody_can_look_up():
    for name in faceattr.__all__:
        thing = getattr(faceattr, name)
        for parameter in inspect.signature(thing).parameters.values() if callable(thing) else ():
            is_open = parameter.kind is parameter.VAR_KEYWORD
            assert not is_open or "Unpack[" in str(parameter.annotation), f"{name}({parameter})"


def test_the_package_runs_as_the_command():
    told = subprocess.run(
        [sys.executable, "-m", "faceattr", "--version"], capture_output=True, text=True
    )
    assert told.stdout == f"faceattr {faceattr.__version__}\n" and told.returncode == 0


USES_ALL = """
import sys
from importlib.util import find_spec
import faceattr
for name in ("onnxruntime", "openvino", "nncf", "ray"):
    if find_spec(name):
        __import__(name)
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""


def test_no_package_tells_its_makers_that_it_is_used(tmp_path):
    """ONNX Runtime and OpenVINO's tools would write an id of this machine, and send it along."""
    own = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    given = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k and "USAGE" not in k}
    subprocess.run([sys.executable, "-c", USES_ALL], check=True, env=given | own)
    written = {part.name for part in tmp_path.rglob("*")}
    assert not written & {"Microsoft", "deviceid", "intel", "openvino_telemetry"}
