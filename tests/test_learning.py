import re

import pytest
from conftest import SHADE, toy_network

from faceattr.model.learning import branch_pattern, check_branches
from faceattr.tasks import Task

PATHS = [
    "block1_conv1/kernel",
    "block5_conv1/kernel",
    "block5_conv1_norm/gamma",
    "block5_conv2_of_gender/bias",
    "gender/kernel",
    "block4_pool_for_gender/kernel",
    "gender_fine/kernel",
]


@pytest.mark.parametrize(
    ("branch", "others", "expected"),
    [
        ("backbone", [], PATHS[:4]),
        ("block5", [], PATHS[1:4]),
        ("block5_conv1", [], PATHS[1:3]),
        ("backbone", ["block5"], PATHS[:1]),
        ("backbone", ["gender"], PATHS[:4]),
        ("block5", ["backbone", "block5_conv1"], PATHS[3:4]),
        ("gender", ["backbone"], PATHS[4:6]),
        ("gender_fine", ["gender"], PATHS[6:]),
    ],
)
def test_a_branch_has_its_own_variables_and_the_narrowest_counts(branch, others, expected):
    pattern = branch_pattern(branch, [branch, *others])
    assert [path for path in PATHS if re.fullmatch(pattern, path)] == expected


def test_a_branch_that_does_not_exist_is_told():
    network = toy_network((SHADE, Task("tint", ("a", "b"))))
    check_branches(network, ["backbone", "block4", "block4_conv1", "tint"])
    for wrong in ("block5", "mood", "head", "(", "block(", "t.nt"):
        with pytest.raises(ValueError, match=f"shade, tint. Received: '{re.escape(wrong)}'"):
            check_branches(network, [wrong])
