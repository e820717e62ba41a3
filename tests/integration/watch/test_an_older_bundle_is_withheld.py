"""What a watcher still knows when the bundle of an earlier epoch is served no more."""

from __future__ import annotations

from chain.watch import Verdict
from tests.integration.watch.site import Site, misallocating


def test_an_honest_root_is_right_with_a_warning_while_an_older_bundle_is_withheld_that_was_read_before(
    site: Site,
) -> None:
    site.post(site.leaves)
    watcher = site.watcher(site.chain.accounts[1])
    assert (watcher.look().verdict, watcher.look().warning) == (Verdict.RIGHT, "")
    following = site.next()
    following.post(following.leaves)
    site.withhold(0)
    for _ in range(2):
        found = watcher.look()
        assert (found.verdict, found.is_well) == (Verdict.RIGHT, True)
        assert found.said == f"epoch 2: root {following.report.root} is right"
        assert "the bundle of epoch 0 cannot be read" in found.warning
        assert "nobody new can check it" in found.warning
    fresh = site.watcher(site.chain.accounts[5]).look()
    assert (fresh.verdict, "the bundle of epoch 0 cannot be read" in fresh.said) == (Verdict.ALARM, True)


def test_a_wrong_root_is_wrong_while_an_older_bundle_is_withheld_that_was_read_before(site: Site) -> None:
    site.post(site.leaves)
    watcher = site.watcher(site.chain.accounts[5])
    assert watcher.look().verdict is Verdict.RIGHT
    following = site.next()
    following.post(misallocating(following))
    site.withhold(0)
    found = watcher.look()
    assert (found.verdict, "epoch 2, leaf account 0x" in found.said) == (Verdict.ALARM, True)


def test_what_was_right_before_it_was_posted_anew_is_not_gone_on_from(site: Site) -> None:
    """What a watcher remembers counts for exactly the reports that it saw; any other has to be shown to it."""
    site.post(site.leaves)
    watcher = site.watcher(site.chain.accounts[5])
    assert watcher.look().verdict is Verdict.RIGHT
    site.told.veto()
    site.post(site.leaves)
    following = site.next()
    following.post(following.leaves)
    site.withhold(0)
    found = watcher.look()
    assert (found.verdict, "the bundle of epoch 0 cannot be read" in found.said) == (Verdict.ALARM, True)
