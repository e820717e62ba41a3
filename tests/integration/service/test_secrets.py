"""A running service shows nobody its keys and secrets: not in its log, not in what its parts say of themselves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from chain.keys import load_keyfile
from chain.rules import Rules
from service import jobs


def test_neither_the_log_nor_the_context_shows_a_key_or_a_secret(
    network: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), network(tmp_path, Rules(methods=("ranking",))) as net:
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        for step in (jobs.step_index, jobs.step_commit, jobs.step_payout):
            step(net.ctx)
        site, settings = net.site, net.ctx.settings
        keys = [
            load_keyfile(site.folder / f"{n}.json", site.environ["HAPTIC_PASSWORD"])
            for n in ("poster", "receipt")
        ]
        secret = settings.secret.get_secret_value()
        hidden = [
            *(a.key.hex() for a in keys),
            *(repr(bytes(a.key))[2:-1] for a in keys),
            secret,
            str(net.ctx.place.master),
        ]
        shown = repr(net.ctx) + str(net.ctx) + repr(settings) + repr(net.ctx.poster) + caplog.text
        assert len(shown) > 1000
        assert [each for each in hidden if each in shown] == []
