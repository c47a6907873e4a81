"""Each trouble that a machine or an installation can have is found, and answered with a cure."""

import builtins
import importlib.metadata
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from ttctune import doctor, torchvision_operators
from ttctune.doctor import arithmetic, compiler, devices, disk, examine, hub, memory, packages, processor, torchvision


def found(check, name):
    (finding,) = [finding for finding in check() if finding.name == name]
    assert (finding.state == "ok") == (finding.cure == "")
    return finding


def needs(monkeypatch, *lines):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: list(lines))


def test_a_package_below_its_floor_is_a_warning_with_the_command_that_cures(monkeypatch):
    needs(monkeypatch, "numpy>=999", "pillow>=1", 'peft>=0.20; extra == "bench"')
    finding = found(packages, "numpy")
    assert finding.state == "warning" and finding.cure == "pip install 'numpy>=999'"
    assert found(packages, "pillow").state == "ok"
    assert "peft" not in {finding.name for finding in packages()}


def test_a_package_that_is_missing_is_a_problem(monkeypatch):
    needs(monkeypatch, "no-such-package-anywhere>=2")
    assert found(packages, "no-such-package-anywhere").state == "problem"


def test_sources_that_are_not_installed_are_a_warning(monkeypatch):
    def missing(_):
        raise importlib.metadata.PackageNotFoundError("ttctune")

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert found(packages, "packages").state == "warning"


@pytest.mark.parametrize(("declared", "state"), [(None, "ok"), (object(), "warning")])
def test_a_torchvision_of_another_build_is_a_warning(monkeypatch, declared, state):
    monkeypatch.setattr(torchvision_operators, "DECLARED", declared)
    finding = found(torchvision, "operators")
    assert finding.state == state and (state == "ok" or "same index" in finding.cure)


@pytest.mark.parametrize(
    ("threads", "cores", "load", "state", "cure"),
    [
        (2, 2, 0.5, "ok", ""),
        (8, 2, 0.5, "warning", "--threads 2"),
        (2, 2, 999.0, "warning", "--threads 1"),
        (1, 2, 999.0, "ok", ""),
    ],
)
def test_threads_that_do_not_fit_the_cores_are_a_warning(monkeypatch, threads, cores, load, state, cure):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(doctor, "usable_cores", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    finding = found(processor, "threads")
    assert finding.state == state and cure in finding.cure
    assert f"{cores} usable" in found(processor, "cores").text


@pytest.mark.parametrize(("free", "state"), [(64 << 30, "ok"), (1 << 30, "warning")])
def test_little_memory_is_a_warning(monkeypatch, free, state):
    monkeypatch.setattr(doctor, "available_memory", lambda: free)
    assert found(memory, "memory").state == state


@pytest.mark.parametrize("name", ["this folder", "temporary files"])
def test_a_full_disk_or_one_that_cannot_be_written_is_a_warning(monkeypatch, name):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    assert found(disk, name).state == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    assert found(disk, name).state == "warning"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written" in found(disk, name).text


def test_graphics_processors_are_named_with_their_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = SimpleNamespace(name="NVIDIA H100", total_memory=80_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert found(devices, "device").text == "NVIDIA H100 (80 GB)"


@pytest.mark.parametrize(("driver", "state"), [("/usr/bin/nvidia-smi", "warning"), (None, "ok")])
def test_a_driver_that_this_torch_cannot_use_is_a_warning(monkeypatch, driver, state):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(shutil, "which", lambda _: driver)
    assert found(devices, "device").state == state


@pytest.mark.parametrize(("path", "state"), [("/usr/bin/g++", "ok"), (None, "warning")])
def test_a_missing_compiler_is_a_warning(monkeypatch, path, state):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: path)
    assert found(compiler, "compiler").state == state


def test_a_hub_that_does_not_answer_or_is_switched_off_is_a_warning_that_names_weights(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "a" / "b"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "_hub_answers", lambda _: True)
    assert {finding.state for finding in hub()} == {"ok"}
    monkeypatch.setattr(doctor, "_hub_answers", lambda _: False)
    assert "--weights" in found(hub, "hub").cure
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in found(hub, "hub").text
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "HF_HOME" in found(hub, "weights").cure


def test_a_hub_that_nobody_answers_for_is_given_up_soon():
    assert not doctor._hub_answers("http://127.0.0.1:9")


def test_the_faster_number_format_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_seconds", lambda product: product() * 0 + next(times))
    for first, second, format in ((1.0, 0.5, "bf16"), (1.0, 2.0, "fp32")):
        times = iter((first, second))
        finding = found(arithmetic, "arithmetic")
        assert finding.state == "ok" and finding.text.endswith(format) and f"{second:.2f} of fp32" in finding.text


def test_products_that_come_out_wrong_are_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "LARGEST_ERROR", 1e-9)
    monkeypatch.setattr(doctor, "MEASURED", 0.0)
    assert found(arithmetic, "arithmetic").state == "problem"


def test_a_torch_that_cannot_be_imported_is_a_problem_and_not_a_traceback(monkeypatch):
    real = builtins.__import__

    def broken(name, *more):
        if name == "torch":
            raise ImportError("libtorch_cpu.so: cannot open shared object file")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", broken)
    monkeypatch.setattr(doctor, "_hub_answers", lambda _: True)
    problems = {finding.name: finding.text for finding in examine() if finding.state == "problem"}
    assert {"processor", "devices", "arithmetic"} <= problems.keys()
    assert all("libtorch_cpu.so" in text for text in problems.values())
