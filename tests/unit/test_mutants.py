"""Mutants do not go stale: what each replaces stands in its file once, and its test exists."""

from __future__ import annotations

import re

import pytest

from tests.mutants import ROOT, Mutant, read_mutants

MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.file + ": " + m.find.strip()[:30])
def test_a_mutant_has_a_place_and_a_test(mutant: Mutant) -> None:
    assert mutant.occurrences(ROOT) == 1
    assert mutant.replace != mutant.find
    assert bool(mutant.test) != bool(mutant.forge)
    if mutant.test:
        file, _, name = mutant.test.partition("[")[0].partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    else:
        name = mutant.forge.removeprefix("--match-test ")
        assert any(name in f.read_text(encoding="utf-8") for f in (ROOT / "contracts/test").glob("*.sol"))
