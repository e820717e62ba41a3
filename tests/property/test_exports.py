"""Laws of exports: they say what the bundle says and what the retrainings learn, once, whatever the form."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.bundle import Evidence
from chain.canonical import text_hash
from chain.epoch import FAST, close, preference_lines
from chain.errors import BundleError
from chain.lines import line_bytes
from chain.messages import Ranking, recover
from service import exports, rowfile
from service.errors import BadRequestError
from service.exports import KINDS, Kind, Row
from tests.worlds import DOMAIN, evidence_of, facts_of, first_standing

worlds = settings(max_examples=25)
seeds = st.integers(0, 2**32)
confidences = st.sampled_from([0.5, 0.5000001, 0.6, 0.75, 0.9, 1.0])


class Told(NamedTuple):
    """An epoch that was closed."""

    evidence: Evidence
    bundle: bytes
    learned: list[dict[str, Any]]
    """What the trainer gets of it."""


@lru_cache(64)
def _told(seed: int, epochs: int = 1) -> tuple[Told, ...]:
    luck, standing, told = Random(seed), first_standing(), []
    for epoch in range(epochs):
        found = evidence_of(luck, standing, epoch=epoch, tasks=luck.randrange(1, 9))
        digests = {r.position: r.ranking.digest(DOMAIN) for r in found.rankings}
        lines: list[bytes] = []
        closed = close(found, facts_of(epoch, {}), standing, FAST, digests, lines.append)
        learned = preference_lines(found.tasks, closed.comparisons, closed.result, epoch)
        told.append(Told(found, b"".join(lines), [json.loads(x) for x in learned]))
        standing = closed.standing
    return tuple(told)


def _rows(kind: Kind, bundle: bytes, confidence: float = 0.5) -> list[Row]:
    return list(exports.rows(kind, io.BytesIO(bundle), confidence))


@given(seeds)
@worlds
def test_preferences_are_what_the_retrainings_learn_from(seed: int) -> None:
    (told,) = _told(seed)
    found = [
        {
            "prompt": r["prompt"], "chosen": r["chosen"], "rejected": r["rejected"], "epoch": r["epoch"],
            "confidence_ppm": round(r["confidence"] * 1e6), "judgements": r["n"],
        }
        for r in _rows("preference", told.bundle)
    ]  # fmt: skip
    assert found == told.learned


@given(seeds)
@worlds
def test_a_pair_has_one_row_in_which_the_labelled_one_is_chosen(seed: int) -> None:
    (told,) = _told(seed)
    lines = [json.loads(x) for x in told.bundle.splitlines()]
    labels = {(x["task"], x["a"], x["b"]): x for x in lines if x["kind"] == "pair" and x["label"]}
    for row in _rows("preference", told.bundle):
        chosen, rejected = text_hash(row["chosen"]), text_hash(row["rejected"])
        a, b = sorted((chosen, rejected))
        line = labels.pop((row["task"], a, b))
        assert chosen == (a if line["label"] > 0 else b)
        assert row["margin"] == abs(int(line["logOdds"])) / 1e6
    assert labels == {}


@given(seeds, confidences)
@worlds
def test_a_threshold_leaves_out_the_less_sure_and_changes_nothing_else(seed: int, least: float) -> None:
    (told,) = _told(seed)
    kept = [r for r in _rows("preference", told.bundle) if r["confidence"] * 10**6 >= round(least * 10**6, 3)]
    assert _rows("preference", told.bundle, least) == kept
    assert _rows("rankings", told.bundle, least) == _rows("rankings", told.bundle)


@given(seeds, confidences)
@worlds
def test_a_response_is_good_or_bad_where_it_beats_or_loses_to_most_of_its_tasks_others(
    seed: int, least: float
) -> None:
    (told,) = _told(seed)
    labels = _rows("preference", told.bundle, least)
    expected = []
    for name, task in sorted(told.evidence.tasks.items()):
        for text in task.responses:
            won = sum(r["task"] == name and r["chosen"] == text for r in labels)
            lost = sum(r["task"] == name and r["rejected"] == text for r in labels)
            if max(won, lost) > (len(task.responses) - 1) / 2:
                expected.append((name, task.prompt, text, won > lost))
    found = [
        (r["task"], r["prompt"], r["completion"], r["label"]) for r in _rows("unpaired", told.bundle, least)
    ]
    assert sorted(found) == sorted(expected)


@given(seeds)
@worlds
def test_the_raw_log_has_every_revision_as_it_was_signed(seed: int) -> None:
    (told,) = _told(seed)
    keys = {s.session.wallet: s.session.key for s in told.evidence.sessions}
    rows = _rows("rankings", told.bundle)
    assert [r["position"] for r in rows] == list(range(len(told.evidence.rankings)))
    for row, known in zip(rows, told.evidence.rankings, strict=True):
        signed = {n: row[n] for n, _ in Ranking.eip712_types()["Ranking"]}
        assert Ranking.parse(signed) == known.ranking
        assert (row["signature"], row["receivedAt"], row["block"]) == (known.signature, known.received_at, 0)
        assert recover(row["digest"], row["signature"]) in {row["wallet"], keys.get(row["wallet"])}


@given(seeds, st.sampled_from(KINDS), st.integers(1, 7))
@worlds
def test_parquet_and_json_lines_have_the_same_rows(seed: int, kind: Kind, group: int) -> None:
    (told,) = _told(seed)
    rows = _rows(kind, told.bundle)
    lines = b"".join(rowfile.jsonl(rows)).splitlines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowfile, "GROUP", group)
        file = pq.ParquetFile(io.BytesIO(b"".join(rowfile.parquet(kind, rows))))
    assert file.read().to_pylist() == [json.loads(x) for x in lines] == rows
    assert file.num_row_groups == -(-len(rows) // group)
    assert file.schema_arrow.equals(rowfile.schema(kind))
    assert all(list(r) == list(exports.COLUMNS[kind]) for r in rows)


@given(seeds, st.sampled_from(KINDS))
@worlds
def test_epochs_are_exported_as_each_alone(seed: int, kind: Kind) -> None:
    """What a bundle gives depends on nothing before it, so files of several epochs can be put together."""
    told = _told(seed, 2)
    alone = [b"".join(rowfile.jsonl(_rows(kind, t.bundle))) for t in told]
    together = b"".join(rowfile.jsonl([r for t in told for r in _rows(kind, t.bundle)]))
    assert together == b"".join(alone)
    assert {json.loads(x)["epoch"] for x in together.splitlines()} <= {0, 1}


def _without(lines: Sequence[bytes], kind: str) -> list[bytes]:
    return [x for x in lines if json.loads(x)["kind"] != kind]


def _lines_of(seed: int = 7) -> list[bytes]:
    return _told(seed)[0].bundle.splitlines(keepends=True)


def test_a_bundle_without_a_task_that_was_judged_is_refused() -> None:
    with pytest.raises(BundleError, match="which the bundle does not have"):
        _rows("preference", b"".join(_without(_lines_of(), "task")))


def test_a_bundle_that_repeats_a_pair_is_refused_by_its_line() -> None:
    lines = _lines_of()
    at = next(i for i, x in enumerate(lines) if json.loads(x)["kind"] == "pair")
    with pytest.raises(BundleError, match=rf"line {at + 2} \(pair\): it repeats a pair"):
        _rows("unpaired", b"".join([*lines[: at + 1], *lines[at:]]))


def test_a_pair_of_responses_that_its_task_does_not_have_is_refused() -> None:
    lines = [json.loads(x) for x in _lines_of()]
    pair = next(x for x in lines if x["kind"] == "pair")
    pair["a"] = "0x" + 64 * "0"
    with pytest.raises(BundleError, match="has no two responses 0x0000"):
        _rows("preference", b"".join(map(line_bytes, lines)))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("pair", "label", "1"), ("pair", "logOdds", "x"), ("ranking", "ranking", []), ("epoch", "epoch", None)],
)
def test_a_field_of_another_type_is_refused_by_its_line(kind: str, field: str, value: object) -> None:
    lines = [json.loads(x) for x in _lines_of()]
    at = next(i for i, x in enumerate(lines) if x["kind"] == kind)
    lines[at][field] = value
    with pytest.raises(BundleError, match=rf"line {at + 1} \({kind}\)"):
        _rows("preference", b"".join(map(line_bytes, lines)))


def test_a_ranking_that_does_not_say_who_was_asked_about_its_signature_is_refused() -> None:
    lines = [json.loads(x) for x in _lines_of()]
    at = next(i for i, x in enumerate(lines) if x["kind"] == "ranking")
    del lines[at]["block"]
    with pytest.raises(BundleError, match=rf"line {at + 1} \(ranking\): 'block'"):
        _rows("rankings", b"".join(map(line_bytes, lines)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_begin_with_an_epoch_is_no_bundle(kind: Kind) -> None:
    for bundle in (b"", b"".join(_lines_of()[1:])):
        with pytest.raises(BundleError, match="begins with its epoch line"):
            _rows(kind, bundle)


@pytest.mark.parametrize("confidence", [0.49, 1.01, float("nan")])
def test_a_confidence_that_no_label_can_have_is_refused(confidence: float) -> None:
    with pytest.raises(BadRequestError, match="confidence"):
        _rows("preference", b"", confidence)


@pytest.mark.parametrize("form", rowfile.FORMS)
def test_a_large_bundle_is_never_whole_in_memory(form: rowfile.Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowfile, "GROUP_BYTES", 1 << 20)
    header, size = _lines_of()[0], 50_000
    texts = {n: [f"{n} {i} ".ljust(size, "x") for i in range(2)] for n in range(300)}
    tasks = [
        {"kind": "task", "task": text_hash(str(n)), "prompt": f"p{n}", "responses": t, "methods": ["ranking"]}
        for n, t in texts.items()
    ]
    tasks.sort(key=lambda t: t["task"])
    pairs = [
        {
            "kind": "pair", "task": t["task"], "a": a, "b": b, "gold": 0, "bucket": 0, "longer": 0,
            "logOdds": "1000000", "label": 1, "confidence": 731_058,
        }
        for t in tasks
        for a, b in [sorted(map(text_hash, t["responses"]))]
    ]  # fmt: skip
    bundle = io.BytesIO(header + b"".join(map(line_bytes, [*tasks, *pairs])))
    del tasks, texts
    assert len(bundle.getvalue()) > 300 * 2 * size
    tracemalloc.start()
    written = sum(map(len, rowfile.parts(form, "preference", exports.rows("preference", bundle))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written > 300 * 100
    assert peak < 12 * (1 << 20)
