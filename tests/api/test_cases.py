"""The Python half of the table of cases. The other half is tests/cluster/test_crds.py."""

import pytest

from patho_api import resource
from tests.api import cases


@pytest.mark.parametrize("case", cases.ACCEPTED, ids=lambda case: case.title)
def test_the_models_accept(case):
    parsed = resource.parse(case.body)
    assert parsed.spec == resource.parse(cases.changed(case.body, {"spec": parsed.spec.dump()})).spec


@pytest.mark.parametrize("case", cases.REFUSED, ids=lambda case: case.title)
def test_the_models_refuse_with_a_sentence(case):
    with pytest.raises(resource.InvalidResource) as refused:
        resource.parse(case.body)
    sentence = str(refused.value)
    assert sentence.startswith(case.field)
    assert case.says in sentence


@pytest.mark.parametrize("case", cases.UPDATES, ids=lambda case: case.title)
def test_the_models_judge_an_update(case):
    old, new = resource.parse(case.body), resource.parse(case.update)
    broken = resource.validate_update(old.spec, new.spec)
    assert bool(broken) == bool(case.says)
    assert case.says in "".join(broken)


def test_every_rule_has_a_case():
    covered = " ".join(_sentences())
    missing = [rule.message for rule in _rules() if rule.message not in covered]
    assert missing == []


def _sentences():
    for case in cases.REFUSED:
        with pytest.raises(resource.InvalidResource) as refused:
            resource.parse(case.body)
        yield str(refused.value)
    for case in cases.UPDATES:
        yield from resource.validate_update(resource.parse(case.body).spec, resource.parse(case.update).spec)


def _rules():
    waiting = [resource.Spec]
    while waiting:
        model = waiting.pop()
        yield from model.rules
        waiting += model.__subclasses__()
