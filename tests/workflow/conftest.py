"""A copy of the project in which workflow tests may write."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from braintumor.core.files import ROOT

# a shell's background job ignores Ctrl-C, and so would the processes of these tests
signal.signal(signal.SIGINT, signal.default_int_handler)
FOLDERS = ("config", "lib", "notebooks", "workflow")
TINY = {
    "protocol": "official",
    "folds": [1],
    "seed": 1,
    "joint": {"image_size": 64, "head_size": 32, "epochs": 8, "filters": 16},
}


class Project:
    """A copy of the project with the profile config/tiny.yaml, on a tiny phantom."""

    def __init__(self, folder, slices):
        self.folder, self.data = folder, slices
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        for name in ("_config.yml", "_toc.yml"):
            shutil.copy(ROOT / name, folder)
        self.write_profile()

    def write_profile(self, **changes):
        """Write the tiny profile with changes of its sections."""
        profile = yaml.safe_dump(TINY | changes)
        (self.folder / "config" / "tiny.yaml").write_text(profile)

    def start(self, *arguments):
        """Start Snakemake in a process group of its own; its output is captured."""
        config = ["profile=tiny", f"data={self.data}"]
        command = [sys.executable, "-m", "snakemake", "--snakefile"]
        command += ["workflow/Snakefile", "--configfile", "config/tiny.yaml"]
        command += ["--rerun-incomplete", "--cores", "1", *arguments]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.Popen(
            [*command, "--config", *config],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder / "lib"), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments):
        """Run Snakemake to its end; returns (exit code, output)."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    @property
    def results(self):
        return self.folder / "results" / f"tiny-{Path(self.data).name}"


@pytest.fixture(scope="session")
def make_project(phantom_folder):
    return lambda folder: Project(folder / "project", phantom_folder)


@pytest.fixture
def project(make_project, tmp_path):
    return make_project(tmp_path)
