"""GEMMs on the matrix unit (AMX): code compiled for it gives the results of the other paths, with and without the unit.

On a processor without AMX, `amx_emulator.cpp`, preloaded into a separate process, executes its instructions: the same
machine code runs, and the tests of the native operations run once more with it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitrail.native import build as native_build
from vitrail.native.cpu_features import cpu_features

pytestmark = pytest.mark.slow  # it compiles every library once more, and emulates the instructions
HERE = Path(__file__).parent
WITH = ("-mamx-tile", "-mamx-bf16", "-mamx-int8")
RUN = f"""
import ctypes, sys, pytest
from vitrail.native import build as native_build
native_build.FLAGS = (*native_build.FLAGS, *{WITH})
failed = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", *sys.argv[1:]])
print("products of the unit:", ctypes.CDLL(None).matrix_unit_count())
sys.exit(int(failed))
"""


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unit in software, ready to be preloaded."""
    there = set(cpu_features())
    if "amx_bf16" in there:
        pytest.skip("this processor has the matrix unit: all tests of compiled operations use it")
    if not sys.platform.startswith("linux"):
        pytest.skip("the emulator of AMX handles signals of Linux")
    if missing := {"avx512_bf16", "avx512_vnni"} - there:
        pytest.skip(f"code compiled with AMX also uses {' and '.join(sorted(missing))}, which this processor lacks")
    made = tmp_path_factory.mktemp("unit") / "matrix_unit.so"
    command = [*native_build.compiler(), "-O2", "-march=native", "-std=c++17", "-shared", "-fPIC"]
    subprocess.run([*command, str(HERE / "amx_emulator.cpp"), "-o", str(made)], check=True)
    return made


def run_with(unit: Path, *tests: str, refuse: bool = False) -> tuple[int, str]:
    """Run tests on a machine with AMX; return the number of tile products, and the output."""
    about = {"LD_PRELOAD": str(unit), "MATRIX_UNIT": "refuse" if refuse else "grant"}
    paths = [str(HERE.parent / test) for test in tests]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *paths], env=os.environ | about, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return int(done.stdout.split("products of the unit:")[1]), done.stdout


@pytest.mark.parametrize(
    "tests",
    [
        ("native/test_gemm_attention.py", "native/test_int8_gemm.py"),
        ("native/test_fused_train.py",),
        ("kernels/test_window_cpp.py", "native/test_token_mlp_compiled.py"),
        ("native/test_convolution_compiled.py", "native/test_bottleneck.py", "native/test_depthwise_compiled.py"),
        ("fused/test_fused_head_mixing.py", "native/test_cross_covariance.py", "native/test_retention_compiled.py"),
    ],
    ids=["gemm", "fused_train", "attention", "convolutions", "head mixing"],
)
def test_compiled_operations_pass_their_tests_on_the_matrix_unit(unit, tests):
    products, said = run_with(unit, *tests)
    assert products > 100, said


def test_a_system_that_does_not_grant_the_unit_gets_vectors(unit):
    products, said = run_with(unit, "native/test_gemm_attention.py", refuse=True)
    assert products == 0, said
