"""Training on several devices and machines is the training on one."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from use_toys import OnEach

from faceattr.training import devices

HERE = Path(__file__).parent
needs_jax = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]


def start(folder, *words, devices=4, **environment):
    environment |= {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
    }
    how = {"env": os.environ | environment, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, HERE / "use_devices.py", folder, *words], **how)


def end(process):
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said


def left(folder):
    about = json.loads((folder / "steps.json").read_text())
    with np.load(folder / "weights.npz") as arrays:
        return about["on"], about["steps"], list(arrays.values())


def assert_alike(one, other):
    """Losses of all steps that both did, and the weights."""
    steps, others = one[1][-len(other[1]) :], other[1]
    for name in ("loss", "shade_loss", "tint_loss"):
        np.testing.assert_allclose([s[name] for s in steps], [s[name] for s in others], atol=1e-4)
    for weight, as_well in zip(one[2], other[2], strict=True):
        np.testing.assert_allclose(weight, as_well, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    end(start(folder, "one=1", "two=2", "four=4", "begun=4:2", "begun=2"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("two", 2), ("four", 4)])
def test_several_devices_learn_what_one_does(trained, name, count):
    one, several = left(trained / "one"), left(trained / name)
    assert one[0] == [1] and several[0] == [count]
    assert len(one[1]) == 40 and one[1][0]["tint_loss"] > 0.5
    assert_alike(one, several)


@pytest.mark.slow
def test_a_run_on_four_devices_goes_on_on_two(trained):
    resumed = left(trained / "begun")
    assert resumed[0] == [2] and len(resumed[1]) == 20
    assert_alike(left(trained / "one"), resumed)


@pytest.mark.slow
def test_two_machines_learn_what_one_does(trained, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    processes = [
        start(
            tmp_path / str(n),
            "all=4",
            devices=2,
            KERAS_DISTRIBUTION_PROCESS_ID=str(n),
            **environment,
        )
        for n in range(2)
    ]
    for process in processes:
        end(process)
    for number in range(2):
        found = left(tmp_path / str(number) / "all")
        assert found[0] == [4]
        assert_alike(left(trained / "one"), found)


def test_machines_take_rows_of_their_own():
    batch = (np.arange(8), {"a": np.arange(8) * 2}, {"a": np.ones(8)})
    (rows, targets, _), whole = devices.rows_of_share(batch, (1, 2)), devices.own_share()
    assert rows.tolist() == [4, 5, 6, 7] and targets["a"].tolist() == [8, 10, 12, 14]
    assert whole == (0, 1) and devices.rows_of_share(batch, whole)[0].tolist() == list(range(8))


def test_another_backend_with_several_gpus_says_which_to_take(monkeypatch):
    said = []

    for count in (1, 4):
        monkeypatch.setattr(devices, "gpu_capabilities", lambda count=count: [()] * count)
        with devices.on_all_devices(OnEach(said.append, object)):
            pass
    assert said == [
        "note: tensorflow trains on one of 4 GPUs here; with KERAS_BACKEND=jax all of them share "
        "each batch"
    ]
    monkeypatch.setenv(devices.MACHINES, "2")
    with pytest.raises(ValueError, match="on JAX alone: set KERAS_BACKEND=jax"):
        devices.begin()


def test_a_batch_that_does_not_go_into_the_devices_is_told(monkeypatch):
    class Four:
        num_model_replicas = 4

    devices.check_batch_size(30)
    monkeypatch.setattr(devices, "_shared", Four)
    devices.check_batch_size(32)
    for size, near in ((30, "28 or 32"), (2, "4 or 8")):
        with pytest.raises(ValueError, match=f"evenly into 4 devices. Choose --batch-size {near}"):
            devices.check_batch_size(size)
