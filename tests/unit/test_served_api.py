"""What a service says of waiting and of numbers is held to bounds before it is believed."""

from __future__ import annotations

import pytest

from chain.errors import HapticError
from service.answers import Proof
from service.api import LONGEST_WAIT_S, _is_wait

PROOF = {"account": "0x" + "11" * 20, "epoch": 0, "cumulative": 1, "index": 0}


@pytest.mark.parametrize("said", ["0000000009999999", "0" * 5000, "61", "-1", "1.5", "", "\u0663", "soon"])
def test_no_service_makes_its_client_wait_for_longer_than_a_minute(said: str) -> None:
    assert not _is_wait(said)
    assert _is_wait(str(LONGEST_WAIT_S))


@pytest.mark.parametrize("found", [-1, 2**96, float("inf"), "x", None])
def test_a_proof_whose_sum_is_no_uint96_is_refused(found: object) -> None:
    with pytest.raises(HapticError, match="the service's proof cannot be read"):
        Proof.parse({**PROOF, "proof": [["0x" + "22" * 32, found]]})
    assert Proof.parse({**PROOF, "proof": [["0x" + "22" * 32, 2**96 - 1]]}).path[-12:] == b"\xff" * 12
