"""Laws of the bundle: one file for one epoch, what is read is what was written, the malformed is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.bundle import Evidence, Run, evidence_lines, read_evidence
from chain.canonical import canonical, hash_of, text_hash
from chain.epoch import FAST, close
from chain.errors import BundleError
from chain.lines import KINDS, MAX_LINE_BYTES, Line, raw_lines, read_lines, to_bytes
from chain.rules import Rules
from chain.served import hash_served
from chain.types import Epoch
from tests.worlds import DOMAIN, evidence_of, facts_of, first_standing


def _evidence(seed: int = 5) -> Evidence:
    runs = [Run(n, Epoch(0), Epoch(n), text_hash(f"file {n}")) for n in (1, 2)]
    return evidence_of(Random(seed), first_standing(), runs=runs)


def _bundle(found: Evidence) -> bytes:
    digests = {r.position: r.ranking.digest(DOMAIN) for r in found.rankings}
    written: list[bytes] = []
    facts = facts_of(0, {0: 1000, 2**64 - 1: 7})
    closed = close(found, facts, first_standing(), FAST, digests, written.append)
    data = b"".join(written)
    assert closed.data_hash == hash_of(data)
    return data


def _read(data: bytes) -> list[Line]:
    return list(read_lines(raw_lines(BytesIO(data))))


EVIDENCE = _evidence()
LINES = list(evidence_lines(EVIDENCE))


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_bundle_that_is_read_is_written_with_the_same_bytes(seed: int) -> None:
    found = _evidence(seed)
    data = _bundle(found)
    lines = _read(data)
    assert to_bytes(lines) == data
    again = read_evidence(lines)
    assert again == found
    assert _bundle(again) == data


def test_the_bytes_are_those_of_the_first_bundle_that_was_ever_written_of_this_evidence() -> None:
    """What is posted rests on them: faster ways to write a bundle may come, other bytes may not."""
    data = _bundle(EVIDENCE)
    assert (len(data), hash_of(data)) == (
        29_087,
        "0x7ffb8c5aff6638f312a94e90fba377d12d4f0266be7717475e0b36c2917c8b8f",
    )


def test_a_bundle_is_handed_over_one_line_at_a_time() -> None:
    digests = {r.position: r.ranking.digest(DOMAIN) for r in EVIDENCE.rankings}
    lines: list[bytes] = []
    close(EVIDENCE, facts_of(0, {0: 1}), first_standing(), FAST, digests, lines.append)
    assert len(lines) > len(LINES)
    assert [x.find(b"\n") for x in lines] == [len(x) - 1 for x in lines]


class _Sipped(BytesIO):
    """A file of which nobody may ask for all at once."""

    asked = 0

    def __iter__(self) -> NoReturn:
        raise AssertionError("a line may be as long as whoever serves it likes")

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.asked = max(self.asked, size)
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.asked = max(self.asked, size)
        return super().readline(size)


def test_a_bundle_is_read_one_line_at_a_time() -> None:
    data = _bundle(EVIDENCE)
    file = _Sipped(data)
    assert read_evidence(read_lines(raw_lines(file))) == EVIDENCE
    assert hash_served(file) == hash_of(data)
    assert 0 < file.asked <= MAX_LINE_BYTES + 1


def test_a_bundle_or_a_line_of_it_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _bundle(EVIDENCE)
    longest = max(map(len, data.splitlines(keepends=True)))
    monkeypatch.setattr("chain.lines.MAX_LINE_BYTES", longest)
    monkeypatch.setattr("chain.lines.MAX_BUNDLE_BYTES", len(data))
    assert len(_read(data)) == data.count(b"\n")
    monkeypatch.setattr("chain.lines.MAX_BUNDLE_BYTES", len(data) - 1)
    with pytest.raises(
        BundleError, match=rf"line {data.count(bytes([10]))} ends beyond {len(data) - 1} bytes"
    ):
        _read(data)
    monkeypatch.setattr("chain.lines.MAX_LINE_BYTES", longest - 1)
    with pytest.raises(BundleError, match=rf"line \d+ is longer than {longest - 1} bytes"):
        _read(data)


@given(st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_a_bundle_is_the_same_in_whatever_order_its_evidence_is_given(luck: Random) -> None:
    def shuffled(items: Any) -> Any:
        return type(items)(luck.sample(list(items), len(items)))

    mixed = Evidence(
        EVIDENCE.header,
        dict(shuffled(list(EVIDENCE.tasks.items()))),
        dict(shuffled(list(EVIDENCE.gold.items()))),
        shuffled(EVIDENCE.sessions),
        shuffled(EVIDENCE.rankings),
        shuffled(EVIDENCE.runs),
        shuffled(EVIDENCE.handouts),
        shuffled(EVIDENCE.skips),
    )
    assert _bundle(mixed) == _bundle(EVIDENCE)


def test_a_bundle_holds_every_kind_of_line_in_the_order_of_kinds() -> None:
    kinds = [line["kind"] for line in _read(_bundle(EVIDENCE))]
    assert sorted(kinds, key=KINDS.index) == kinds
    assert set(kinds) == set(KINDS)


def test_all_amounts_are_decimal_text_because_they_exceed_what_json_carries() -> None:
    for line in _read(_bundle(EVIDENCE)):
        for name in {"funded", "carriedIn", "carriedOut", "amount", "cumulative", "stake", "score"} & set(
            line
        ):
            assert str(int(line[name])) == line[name]


@given(st.data())
@settings(max_examples=30)
def test_a_bundle_cut_anywhere_within_a_line_is_refused(data: st.DataObject) -> None:
    whole = _bundle(EVIDENCE)
    cut = data.draw(st.integers(0, len(whole) - 1).filter(lambda n: whole[:n][-1:] != b"\n"))
    line = whole.count(b"\n", 0, cut) + 1
    with pytest.raises(BundleError, match=f"line {line} is cut off|begins with its epoch line"):
        _read(whole[:cut])


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"{", "line 3 is not JSON"),
        (b"", "line 3 is not JSON"),
        (b'{"kind":"\xff"}', "line 3 is not JSON"),
        (b'{"a":NaN,"kind":"leaf"}', "line 3 is not JSON"),
        (b'{"a":9007199254740993,"kind":"leaf"}', "line 3 is not JSON"),
        (b'{"a":"\\ud800","kind":"leaf"}', "line 3 is not JSON"),
        (b"[]", "line 3 is not an object of a known kind"),
        (b'{"kind":"gift"}', "line 3 is not an object of a known kind"),
        (b'{"kind":["leaf"]}', "line 3 is not an object of a known kind"),
        (b"{}", "line 3 is not an object of a known kind"),
        (b'{"kind":"leaf"} ', r"line 3 \(leaf\) is not in canonical form"),
        (b'{"kind":"leaf"}\r', r"line 3 \(leaf\) is not in canonical form"),
        (b'{"kind":"leaf","a":1}', r"line 3 \(leaf\) is not in canonical form"),
        (b'{"a":1.0,"kind":"leaf"}', r"line 3 \(leaf\) is not in canonical form"),
        (b'{"a":1,"a":1,"kind":"leaf"}', r"line 3 \(leaf\) is not in canonical form"),
        ('{"kind":"leaf"}'.encode("utf-16"), r"line 3 .leaf. is not in canonical form|line 3 is not JSON"),
    ],
)
def test_a_line_that_is_not_canonical_is_named(line: bytes, match: str) -> None:
    first = to_bytes(LINES[:2])
    with pytest.raises(BundleError, match=match):
        _read(first + line + b"\n")


def test_deep_nesting_is_refused_and_does_not_end_the_process() -> None:
    script = """
import chain.keys  # loads eth-account
from chain.lines import read_lines
from chain.errors import BundleError
try:
    list(read_lines([b"[" * 100_000 + b"\\n"]))
except BundleError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "line 1 is not JSON: maximum recursion depth exceeded" in done.stdout


@pytest.mark.parametrize("data", [b"", b"\n", to_bytes(LINES[1:])])
def test_a_bundle_begins_with_its_epoch_line(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"begins with its epoch line|line 1 is not JSON"):
        _read(data)


def _at(kind: str) -> int:
    return next(i for i, line in enumerate(LINES) if line["kind"] == kind)


def _refused(kind: str, match: str, change: Callable[[Line], None]) -> None:
    """The bundle whose first line of a kind is changed is refused, and that line is named."""
    lines: list[Line] = json.loads(json.dumps(LINES))
    change(lines[_at(kind)])
    with pytest.raises(BundleError, match=rf"line {_at(kind) + 1} \({kind}\).*{match}"):
        read_evidence(lines)


NUMBERS = ("epoch", "chainId", "genesis", "length", "snapshotBlock")
HASHES = ("snapshotHash", "seed", "goldRoot", "previous")


@pytest.mark.parametrize("value", [-1, "1", True, 1.5, None])
@pytest.mark.parametrize(
    ("kind", "name"), [*(("epoch", n) for n in NUMBERS), ("ranking", "position"), ("run", "last")]
)
def test_a_number_is_a_whole_number(kind: str, name: str, value: object) -> None:
    _refused(kind, f"{name} is {value!r}, expected a whole number", lambda line: line.update({name: value}))


@pytest.mark.parametrize("value", ["0x12", "", 7, None])
@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("epoch", n) for n in HASHES), ("gold", "task"), ("gold", "salt"), ("run", "snapshot")],
)
def test_a_hash_has_32_bytes(kind: str, name: str, value: object) -> None:
    _refused(kind, f"{name}: {value!r} is not 32 bytes", lambda line: line.update({name: value}))


@pytest.mark.parametrize(
    "value", ["12", [], ["1"], ["1", "2", "3"], [1, 2], ["01", "2"], ["+1", "2"], ["1", "0"], ["\u0661", "2"]]
)
def test_lambda_is_a_numerator_and_a_denominator_in_decimal(value: object) -> None:
    _refused("epoch", "lambda", lambda line: line.update({"lambda": value}))


@pytest.mark.parametrize("kind", KINDS[:8])
def test_a_line_has_exactly_its_fields(kind: str) -> None:
    _refused(kind, "has the fields", lambda line: line.update({"more": 1}))
    name = next(k for k in LINES[_at(kind)] if k != "kind")
    _refused(kind, "has the fields", lambda line: line.pop(name))


@pytest.mark.parametrize(
    ("kind", "match", "change"),
    [
        ("epoch", "vault: 'x' is not an address", {"vault": "x"}),
        ("epoch", "the rules beside it hash to", {"rulesHash": text_hash("others")}),
        ("task", "its prompt, responses, methods, author, assignees and salt hash to", {"prompt": "another"}),
        ("task", "assignees and salt hash to", {"salt": text_hash("another")}),
        ("task", "salt: '' is not", {"salt": ""}),
        ("task", "prompt is 7, expected a text", {"prompt": 7}),
        ("task", "two responses", {"responses": ["same", "same"]}),
        ("task", "methods", {"methods": []}),
        ("session", "expected an object with wallet", {"session": 7}),
        ("session", "signature is 7, expected a text", {"signature": 7}),
        ("ranking", "expected an object with wallet", {"ranking": []}),
        ("ranking", "signature is None, expected a text", {"signature": None}),
        ("run", "run is 1, expected a whole number from 0 as decimal text", {"run": 1}),
        ("run", "run is '-1', expected", {"run": "-1"}),
        ("gold", "rank is '1', expected", {"ranks": ["1", "2"]}),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(kind: str, match: str, change: Line) -> None:
    _refused(kind, match, lambda line: line.update(change))


@pytest.mark.parametrize("kind", ["task", "gold", "session", "run"])
def test_a_line_that_stands_twice_or_out_of_order_is_named(kind: str) -> None:
    at = _at(kind)
    for lines in (
        [*LINES[: at + 1], *LINES[at:]],
        [*LINES[:at], LINES[at + 1], LINES[at], *LINES[at + 2 :]],
    ):
        with pytest.raises(BundleError, match=rf"line \d+ \({kind}\) repeats another, or is out of order"):
            read_evidence(lines)


def test_a_bundle_has_one_epoch_line() -> None:
    with pytest.raises(BundleError, match="this one has 2"):
        read_evidence([LINES[0], *LINES])


def test_the_texts_of_a_task_stand_in_the_order_of_their_hashes() -> None:
    lines: list[Line] = json.loads(json.dumps(LINES))
    lines[_at("task")]["responses"].reverse()
    with pytest.raises(BundleError, match=r"\(task\) repeats another, or is out of order"):
        read_evidence(lines)


RULES = Rules().to_json()


def test_rules_are_read_back_as_they_were() -> None:
    assert Rules.from_json(json.loads(canonical(RULES))) == Rules()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": 2}, "of version 2, and this program knows version 3: use the release"),
        ({"version": True}, "of version True"),
        ({"overlap": "5"}, "overlap is '5'"),
        ({"overlap": 0}, "overlap is 0"),
        ({"overlap": True}, "overlap is True"),
        ({"gold_ppm": 1_000_001}, "gold_ppm is 1000001"),
        ({"judged_per_skip": 0}, "judged_per_skip is 0"),
        ({"lease_s": -1}, "lease_s is -1"),
        ({"methods": []}, "methods"),
        ({"methods": ["coin"]}, "coin"),
        ({"methods": ["likert", "likert"]}, "each once"),
        ({"methods": "likert"}, "not those of version 3"),
        ({"methods": 7}, "cannot be read"),
        ({"extra": 1}, "cannot be read"),
        ({"params": None}, "cannot be read"),
        ({"params": {**RULES["params"], "n1": "36"}}, "not those of version 3"),
        ({"params": {**RULES["params"], "n1": True}}, "not those of version 3"),
        ({"params": {**RULES["params"], "n1": 0}}, "n1 is 0"),
        ({"params": {**RULES["params"], "z_den": 0}}, "z_den is 0"),
        ({"params": {**RULES["params"], "c0": -1}}, "c0 is -1"),
        ({"params": {**RULES["params"], "lambda0_den": "0"}}, "lambda0_den is 0"),
        ({"params": {**RULES["params"], "lambda0_num": 1}}, "not those of version 3"),
        ({"params": {**RULES["params"], "amax": 400_000}}, "must not fall"),
        ({"params": {**RULES["params"], "more": 1}}, "cannot be read"),
        ({"params": {k: v for k, v in RULES["params"].items() if k != "n1"}}, "not those of version 3"),
    ],
)
def test_rules_that_are_not_exactly_rules_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(BundleError, match=match):
        Rules.from_json({**RULES, **change})


@pytest.mark.parametrize("value", [None, [], "rules", 7])
def test_rules_are_an_object(value: Any) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Rules.from_json(value)
