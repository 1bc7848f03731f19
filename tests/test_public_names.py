import subprocess
import sys

import pytest

import faceattr


@pytest.mark.parametrize("name", faceattr.__all__)
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(faceattr, name)
    assert name in faceattr.__doc__
    assert not callable(value) or value.__doc__


def test_unknown_names_are_told():
    with pytest.raises(AttributeError, match="no 'Trainer'"):
        faceattr.Trainer  # noqa: B018


@pytest.mark.parametrize(
    ("old", "new"), [("Spelling", "LabelMap"), ("Mix", "TaskSampling"), ("Adding", "NewHeads")]
)
def test_an_old_name_works_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"faceattr.{old} is called {new} now"):
        assert getattr(faceattr, old) is getattr(faceattr, new)


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
