"""The grid on a real SLURM cluster of one node, where Debian can install one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("slurm.sh")


def test_a_grid_on_slurm_survives_scancel_and_sigkill(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        [SCRIPT, tmp_path],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    if ran.returncode == 77:
        pytest.skip(ran.stdout.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 tried again; 8 trained, 10 evaluated" in ran.stdout
