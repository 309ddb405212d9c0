"""The knobs' one declaration, as settings classes read it."""

import dataclasses
import subprocess
import sys

import pydantic
import pytest

from tabatlas.tabnet.architecture import PRESETS, Architecture


@pytest.fixture(scope="module")
def model() -> type[pydantic.BaseModel]:
    fields = {
        field.name: (field.type, pydantic.Field(field.default, **field.metadata))
        for field in dataclasses.fields(Architecture)
    }
    return pydantic.create_model("Knobs", __config__={"strict": True}, **fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_lie_within_the_limits_of_the_knobs(model, preset):
    values = dataclasses.asdict(PRESETS[preset])
    assert model(**values).model_dump() == values


@pytest.mark.parametrize("wrong", [{"gamma": 0.9}, {"n_shared": 0}, {"mask_type": "softmax"}])
def test_values_outside_the_limits_are_refused(model, wrong):
    with pytest.raises(pydantic.ValidationError):
        model(**wrong)


def test_every_knob_says_what_it_means(model):
    assert all(field.description for field in model.model_fields.values())


def test_the_network_needs_torch_alone():
    code = "import sys, tabatlas.tabnet.classifier, tabatlas.tabnet.decoder; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert {"pydantic", "pandas", "scanpy", "anndata"}.isdisjoint(loaded.decode().split())
