"""A watcher proves theft by the tree that pays, though its bundle is withheld."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from chain.hashing import keccak256
from chain.served import Served, Source
from chain.tree import preimages
from chain.types import Wei
from chain.verify import bundle_source
from chain.watch import Verdict
from tests.integration.watch.site import (
    Dishonest,
    Site,
    dropping,
    duplicating,
    lowering,
    misallocating,
    swapping,
    unchanged,
)

ROBBED = pytest.mark.parametrize("leaves", [dropping, lowering])


@ROBBED
def test_who_is_robbed_is_proven_robbed_though_the_older_bundle_is_withheld_after_one_look(
    site: Site, leaves: Dishonest
) -> None:
    me, _ = site.wallet()
    watcher = site.watcher(me)
    assert watcher.look().verdict is Verdict.IDLE
    site.withhold(0)
    site.post(leaves(site))
    assert watcher.look().verdict is Verdict.CHALLENGED
    assert site.pending[-1] == 0


@ROBBED
def test_what_one_process_learned_the_next_one_knows(site: Site, leaves: Dishonest) -> None:
    _, key = site.wallet()
    site.watch()
    assert [f.suffix for f in Path(".haptic/watch").iterdir()] == [".jsonl"]
    site.withhold(0)
    site.post(leaves(site))
    assert "ALARM" in site.watch("--keyfile", key, "--memory", "elsewhere").output
    assert "CHALLENGED" in site.watch("--keyfile", key).output


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("before", "verdict"),
    [(unchanged, Verdict.RIGHT), (misallocating, Verdict.ALARM)],
    ids=["right", "wrong"],
)
def test_a_tree_that_was_read_while_it_waited_is_known_when_it_pays(
    site: Site, before: Dishonest, verdict: Verdict, *, restarted: bool
) -> None:
    me, _ = site.wallet()
    memory = site.folder / "memory" if restarted else None
    watcher = site.watcher(me, memory=memory)
    site.post(before(site))
    assert watcher.look().verdict is verdict
    after = site.next()
    site.withhold(1)
    after.post(dropping(after))
    if restarted:
        watcher = site.watcher(me, memory=memory)
    found = watcher.look()
    if "pays now, though it was never found right" in found.said:
        found = watcher.look()
    assert found.verdict is Verdict.CHALLENGED


def test_rejected_roots_do_not_drive_out_the_tree_that_pays(site: Site) -> None:
    me, _ = site.wallet()
    memory = site.folder / "memory"
    watcher = site.watcher(me, memory=memory)
    assert watcher.look().verdict is Verdict.IDLE
    site.withhold(0)
    for leaves in (swapping, duplicating, dropping, lowering):
        site.post(leaves(site))
        assert watcher.look().verdict is Verdict.CHALLENGED
        assert len(list(memory.iterdir())) == 2
        site.chain.add_bond()
    site.post(lowering(site))
    assert site.watcher(me, memory=memory).look().verdict is Verdict.CHALLENGED


def test_the_active_tree_is_tried_until_it_is_learned_and_asked_for_no_more(site: Site) -> None:
    asked: list[int] = []
    there = bundle_source(str(site.folder))
    serve: list[Source] = [
        bundle_source("http://127.0.0.1:9"),
        lambda _: BytesIO(b"not a leaf"),
        there,
    ]

    def source(epoch: int) -> Served:
        asked.append(epoch)
        return serve[min(len(asked), len(serve)) - 1](epoch)

    watcher = site.watcher(source=source)
    found = [watcher.look() for _ in range(5)]
    assert [x.verdict for x in found] == [Verdict.IDLE] * 5
    assert "the bundle of epoch 0 cannot be read: http://127.0.0.1:9/v1/epochs/0/bundle" in found[0].warning
    assert (
        "what is served as the bundle of epoch 0 has other leaves than the root that pays" in found[1].warning
    )
    assert [(x.said, x.warning) for x in found] == [
        ("no root is pending", w) for w in (found[0].warning, found[1].warning, "", "", "")
    ]
    assert asked == [0, 0, 0]


def test_a_dead_bundle_source_is_said_though_nothing_is_pending(site: Site) -> None:
    said = site.watch(bundle="http://127.0.0.1:9")
    assert said.exit_code == 0
    assert "no root is pending. WARNING: the active tree, which the next root is held against" in said.output
    assert "could not be read: the bundle of epoch 0 cannot be read: http://127.0.0.1:9/v1/" in said.output
    site.watch()
    said = site.watch(bundle="http://127.0.0.1:9")
    assert (said.exit_code, "could not be read" in said.output) == (0, False)


def _raise_a_leaf(_: Site, lines: list[bytes]) -> bytes:
    line = json.loads(lines[1])
    line["cumulative"] = str(int(line["cumulative"]) + 10**9)
    return b"\n".join([lines[0], json.dumps(line).encode(), *lines[2:]])


def _swap_trees(site: Site, lines: list[bytes]) -> bytes:
    """Put another tree there that is one, with more for everybody than the pending one has."""
    leaves = [replace(x, cumulative=Wei(2 * x.cumulative)) for x in site.leaves]
    depth = (len(leaves) - 1).bit_length()
    root = "0x" + keccak256(preimages(leaves, depth)[-1]).hex()
    header = json.loads(lines[0]) | {
        "root": root,
        "sum": str(sum(x.cumulative for x in leaves)),
        "depth": depth,
    }
    told = [header, *({"account": x.account, "cumulative": str(x.cumulative)} for x in leaves)]
    return b"".join(json.dumps(x).encode() + b"\n" for x in told)


@pytest.mark.parametrize("tamper", [_raise_a_leaf, _swap_trees, lambda _, lines: b"\n".join(lines[:-1])])
def test_a_memory_that_was_tampered_with_proves_nothing_and_harms_nothing(
    site: Site, tamper: Callable[[Site, list[bytes]], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    me, _ = site.wallet()
    memory = site.folder / "memory"
    assert site.watcher(memory=memory).look().verdict is Verdict.IDLE
    (file,) = memory.iterdir()
    tampered = tamper(site, file.read_bytes().splitlines())
    file.write_bytes(tampered)
    site.post(site.leaves)
    assert site.watcher(me, memory=memory).look().verdict is Verdict.RIGHT
    assert f"{file} is ignored: it has other leaves than the root that pays" in caplog.text
    assert file.read_bytes() != tampered
    assert "refuse" not in caplog.text
    site.told.veto()
    file.write_bytes(tampered)
    site.post(lowering(site))
    assert site.watcher(me, memory=memory).look().verdict is Verdict.CHALLENGED


def test_a_folder_that_cannot_be_written_is_said_once_and_the_watch_goes_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    (site.folder / "file").touch()
    me, _ = site.wallet()
    watcher = site.watcher(me, memory=site.folder / "file" / "memory")
    assert watcher.look().verdict is Verdict.IDLE
    site.withhold(0)
    site.post(lowering(site))
    assert watcher.look().verdict is Verdict.CHALLENGED
    assert caplog.text.count("file/memory should keep is not written (Not a directory)") == 1
