import pytest

from aiida_autopipe.core.errors import EngineError, InputError, PotentialFileError
from aiida_autopipe.core.surrogates.registry import (
    SurrogateSpec,
    installed_universal,
    load_surrogate,
    surrogate_names,
)

EMT = "ase.calculators.emt.EMT"


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (("chgnt",), InputError, "did you mean 'chgnet'"),
        (("quantum",), InputError, "model files"),
        (("missing.model",), PotentialFileError, "There is no model file 'missing.model'"),
        (("ase.calculators.emt.EMTT",), EngineError, "did you mean 'EMT'"),
        (("no_such_package.Calculator",), EngineError, "No module named"),
        ((EMT, {"asap": 1}), InputError, "unknown keyword 'asap'"),
        (("ace", {"file": "x"}), InputError, "no keyword of the surrogate 'ace'"),
        (("mace", {"dtype": "float16"}), InputError, "float32 or float64"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(spec, kind, message):
    with pytest.raises(kind, match=message):
        load_surrogate(SurrogateSpec(*spec))


def test_bad_specifications():
    with pytest.raises(InputError, match="device is 'gpu'"):
        SurrogateSpec(EMT, device="gpu")
    with pytest.raises(InputError, match="did you mean 'surrogate'"):
        SurrogateSpec.from_dict({"surogate": EMT})
    with pytest.raises(InputError, match="needs the key 'surrogate'"):
        SurrogateSpec.from_dict({})


def test_a_model_file_needs_trust(tmp_path):
    path = tmp_path / "some.model"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match="--trust"):
        load_surrogate(SurrogateSpec(str(path)))


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "some.pt"
    path.write_bytes(b"x")
    with pytest.raises(PotentialFileError, match=r"MACE models end in \.model"):
        SurrogateSpec(str(path)).resolved()


def test_names_stand_for_functions_and_keywords():
    assert {"ace", "ase", "chgnet", "mace", "sevennet"} <= set(surrogate_names())
    assert SurrogateSpec("mace:small").resolved() == ("mace", {"model": "mace:small"})
    keywords = {"asap_cutoff": True}
    expected = ("ase", {"calculator": EMT, "keywords": keywords})
    assert SurrogateSpec(EMT, keywords).resolved() == expected
    assert SurrogateSpec("auto").resolved() == (installed_universal(), {})


def test_the_fingerprint_is_that_of_the_method():
    one, same = (load_surrogate(SurrogateSpec(EMT)).method for _ in range(2))
    other = load_surrogate(SurrogateSpec(EMT, {"asap_cutoff": True})).method
    assert one["fingerprint"] == same["fingerprint"] != other["fingerprint"]


def test_unknown_foundation_models_and_no_network(monkeypatch):
    with pytest.raises(InputError, match="no foundation model 'medum'"):
        load_surrogate(SurrogateSpec("mace:medum"))
    from mace.calculators import foundations_models

    def offline(**_):
        raise RuntimeError("Model download failed and no local model found")

    monkeypatch.setattr(foundations_models, "mace_mp", offline)
    with pytest.raises(EngineError, match=r"cannot be downloaded .*name it instead"):
        load_surrogate(SurrogateSpec("mace:small"))
