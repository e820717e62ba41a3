"""One story of an operator for all tests of a file, undone after each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.deploy import deploy
from chain.devnet import Devnet
from chain.keys import address_of, devnet_accounts
from chain.publisher import Report
from chain.rpc import Rpc
from tests.integration.conftest import BOND, COOLDOWN_S, EPOCH_S, GENESIS, WINDOW_S, Chain
from tests.integration.story import Story
from tests.integration.watch.site import (
    Site,
    leaves_of,
)
from tests.worlds import PEOPLE, first_standing


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Story, Report, dict[str, int]]]:
    accounts = devnet_accounts(31337)
    with Devnet(0, timestamp=GENESIS) as anvil, Rpc(anvil.url) as rpc:
        deployment = deploy(
            rpc, accounts[0], genesis=GENESIS, epoch_length=EPOCH_S, challenge_window=WINDOW_S, cooldown=COOLDOWN_S,
            bond=BOND, poster=address_of(accounts[0]), guardian=address_of(accounts[1]),
        )  # fmt: skip
        chain = Chain(rpc, anvil.url, deployment, accounts)
        chain.add_bond()
        folder = tmp_path_factory.mktemp("bundles")
        story = Story(chain, folder, first_standing(), [], deployment.from_block - 1, {})
        story.open(0)
        story.endow(len(PEOPLE[:5]))
        chain.fund(4, 0, 10_000)
        closed, report = story.close(0)
        story.post(report)
        story.activate()
        chain.fund(4, 0, 7_000)
        chain.fund(4, 1, 3_000)
        paid = {str(a): int(v) for a, v in closed.standing.cumulative.items()}
        _, report = story.close(1)
        yield story, report, paid


@pytest.fixture
def site(
    told: tuple[Story, Report, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    story, report, paid = told
    monkeypatch.chdir(tmp_path)
    for epoch in range(2):
        file = f"epoch-{epoch}.jsonl"
        (tmp_path / file).write_bytes((story.folder / file).read_bytes())
    leaves = tuple(leaves_of(tmp_path / "epoch-1.jsonl"))
    state = story.chain.rpc.request("evm_snapshot")
    yield Site(story, report, leaves, paid, tmp_path)
    assert story.chain.rpc.request("evm_revert", state)
