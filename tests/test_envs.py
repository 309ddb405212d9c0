"""Conda's environments, the constraints and the package ask for the same things."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tabatlas.doctor.installation import normalize, read_pins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = read_pins(ROOT / "envs" / "constraints.txt")
OF_CONDA = {"pytorch-cpu": "torch"}  # conda-forge's name of a package


def read_env(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Versions by name of what conda installs, and of what pip does."""
    listed = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())["dependencies"]
    (of_pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    of_conda = [entry for entry in listed if "==" in entry]
    return tuple(dict(entry.split("==") for entry in entries) for entries in (of_conda, of_pip))


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_an_environment_has_what_the_package_asks_for_in_the_pinned_versions(name):
    of_conda, of_pip = read_env(name)
    found = {normalize(OF_CONDA.get(key, key)): version for key, version in of_conda.items()}
    assert not found.keys() & of_pip.keys()
    asked = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["slurm"]
    names = [normalize(Requirement(one).name) for one in asked]
    assert found | of_pip == {name: PINS[name] for name in names}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_an_environment_can_be_made_anywhere(name):
    """Snakemake copies the file: what is named by a path from there is not found."""
    text = (ROOT / "envs" / f"{name}.yaml").read_text()
    assert not [line for line in text.splitlines() if line.strip().startswith(("- -", "- ."))]
    assert "pip install --no-deps -e ." in (ROOT / "envs" / f"{name}.post-deploy.sh").read_text()


def test_the_environments_differ_in_torch_alone():
    (cpu, cpu_pip), (gpu, gpu_pip) = read_env("cpu"), read_env("gpu")
    assert cpu.items() - gpu.items() == {("pytorch-cpu", PINS["torch"])}
    assert gpu_pip.items() - cpu_pip.items() == {("torch", PINS["torch"])}
    assert gpu.items() <= cpu.items()
    assert cpu_pip.items() <= gpu_pip.items()


def test_pins_are_within_what_the_package_allows():
    extras = PROJECT["optional-dependencies"].values()
    asked = [Requirement(one) for one in sum(extras, PROJECT["dependencies"])]
    for one in asked:
        if one.name != PROJECT["name"]:
            assert one.specifier.contains(PINS[normalize(one.name)]), one
