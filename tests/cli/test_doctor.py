"""`vitrail doctor`: true about this machine, and with a cure for each thing that is wrong."""

import json

import pytest
import torch

from vitrail.errors import ResourceError
from vitrail.machine import diagnostics, system_info
from vitrail.machine.kernels import find_kernels, kernel_table
from vitrail.machine.matmul_peak import matmul_rates

GOOD = {
    "processor": {"threads": 2, "usable_cores": 2.0},
    "memory": {"available": 8 << 30},
    "disks": [{"what": "runs", "path": "runs", "free": 9 << 30}],
    "gpus": [],
    "compiler": "g++",
    "versions": {"torch build": "CPU"},
    "speed": {"cpu float32": 50.0, "cpu bfloat16": 90.0},
}


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(diagnostics.shutil, "which", lambda name: None)


@pytest.mark.usefixtures("no_driver")
def test_a_good_machine_has_no_problems():
    assert diagnostics.problems(GOOD) == []


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    ("change", "what", "cure"),
    [
        ({"processor": {"threads": 64, "usable_cores": 1.5}}, "64 threads on 1 cores", "OMP_NUM_THREADS=1"),
        ({"memory": {"available": 1 << 30}}, "1.0 GiB of memory", "small batch"),
        ({"disks": [{"what": "runs", "path": "r", "free": 1 << 20}]}, "for runs at r", "Free some space"),
        ({"disks": [{"what": "shared memory", "path": "/dev/shm", "free": 1 << 20}]}, "shared memory", "workers=0"),
        ({"compiler": None}, "No C++ compiler", "Install g++"),
        ({"speed": {"cpu float32": 50.0, "cpu bfloat16": 2.0}}, "bf16 is slower", "precision=fp32"),
    ],
)
def test_each_problem_is_named_with_its_remedy(change, what, cure):
    (found,) = diagnostics.problems({**GOOD, **change})
    assert what in found.what and cure in found.cure


@pytest.mark.parametrize(("build", "what"), [("CPU", "built for CPUs"), ("CUDA 13.2", "torch sees no GPU")])
def test_a_driver_without_a_usable_gpu_is_a_problem(monkeypatch, build, what):
    monkeypatch.setattr(diagnostics.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (found,) = diagnostics.problems({**GOOD, "versions": {"torch build": build}})
    assert what in found.what


@pytest.mark.usefixtures("no_driver")
def test_an_unwritable_cache_is_reported(monkeypatch):
    def refuse(kind: str):
        raise ResourceError("No folder can be written.\nSet VITRAIL_CACHE.")

    monkeypatch.setattr(diagnostics, "cache_folder", refuse)
    monkeypatch.setattr(system_info, "cache_folder", refuse)
    assert diagnostics.problems(GOOD) == [("No folder can be written.", "Set VITRAIL_CACHE.")]
    assert "cache" not in [disk["what"] for disk in system_info.disks()]


def test_cgroup_quota_and_memory_limit_count(monkeypatch):
    files = {system_info._QUOTAS[0]: "50000 100000", system_info._LIMITS[0]: str(1 << 30)}
    monkeypatch.setattr(system_info, "_read", lambda path: files.get(path, ""))
    assert system_info.usable_cores() == 0.5
    assert system_info.memory()["total"] == 1 << 30


def test_every_kernel_is_listed_with_one_backend_per_precision():
    rows = kernel_table()
    assert {row["kernel"] for row in rows} == {kernel.name for kernel in find_kernels()} != set()
    for kernel in find_kernels():
        for precision in ("float32", "bfloat16"):
            told = [row["says"] for row in rows if (row["kernel"], row["precision"]) == (kernel.name, precision)]
            assert told.count("runs") == len({row["device"] for row in rows}) and len(told) >= len(kernel.backends)


def test_unsupported_backends_are_reported_with_the_reason(monkeypatch):
    (kernel,) = [kernel for kernel in find_kernels() if kernel.name == "attention"]
    refusing = kernel.backends[0]._replace(unsupported_reason=lambda *args: "too warm today")
    monkeypatch.setattr(kernel, "backends", (refusing, *kernel.backends[1:]))
    said = {row["backend"]: row["says"] for row in kernel_table() if row["precision"] == "float32"}
    assert said[refusing.name] == "too warm today" and "runs" in said.values()


def test_rates_are_measured_for_both_precisions():
    rates = matmul_rates()
    assert {"cpu float32", "cpu bfloat16"} <= set(rates) and min(rates.values()) > 0


def test_the_verb_prints_all_of_it(run):
    facts = json.loads(run("doctor", "--json", "--no-speed").out)
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] and facts["speed"] == {}
    assert facts["processor"]["threads"] == torch.get_num_threads()
    assert "peers" in facts["extras"] and "dev" not in facts["extras"]
    told = run("doctor", "--no-speed").out
    for word in ("system", "processor", "memory", "compiler", "kernels", "attention", "not measured"):
        assert word in told
