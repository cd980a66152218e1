import pytest

from mirolib import RunSettings, cite
from mirolib.data import LOADERS
from mirolib.learning.methods import METHODS
from mirolib.workbench.run import Run


@pytest.mark.parametrize("dataset", LOADERS)
def test_every_data_set_has_an_entry(dataset):
    assert f"{{{dataset}," in cite(RunSettings(dataset))


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"finetuning"}))  # which nobody published
def test_every_method_has_an_entry(method):
    assert f"{{{method}," in cite(RunSettings(method=method))


def test_a_run_cites_what_it_used_and_leaves_out_what_has_no_paper(tmp_path):
    row = {"dataset": "cifar100", "method": "bic", "model": "preact-resnet32"}
    text = cite(Run(tmp_path, row, {}))
    assert [line.partition("{")[2].rstrip(",") for line in text.splitlines() if line.startswith("@")] == [
        "miro", "carm", "bic", "preact-resnet32", "cifar100",
    ]  # fmt: skip
    assert text.count("{") == text.count("}") and repr(text) == str(text)
    assert cite(Run(tmp_path, {"dataset": "my-own", "method": "finetuning", "model": "mlp"}, {})).count("@") == 2
