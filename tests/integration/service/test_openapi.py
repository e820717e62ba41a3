"""The OpenAPI document is true: requests made from it are answered as it says, by every route of a real service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi

from service import jobs
from tests.integration.service.conftest import RANKING_ONLY

EXAMPLES = 80
"""Of each route; there are some thirty."""
HELD = (
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
)
ENDLESS = "/v1/events"
"""Answers for as long as one listens."""


@pytest.fixture(scope="module")
def net(network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a service with a closed epoch and an open one."""
    with network(tmp_path_factory.mktemp("openapi"), RANKING_ONLY) as made:
        made.go_to(made.start(0) + 1)
        made.open(0, made.plans(0, 8))
        for _ in range(3):
            made.judge(made.person())
        made.new_epoch()
        made.open(1, made.plans(1, 8))
        jobs.step_index(made.ctx)
        yield made


@pytest.fixture(scope="module")
def schema(net: Any) -> Any:
    return schemathesis.openapi.from_url(f"{net.api.url}/openapi.json")


def _operations(schema: Any) -> list[Any]:
    return [found.ok() for found in schema.get_all_operations() if found.ok().path != ENDLESS]


def _answers(operation: Any, token: str) -> set[int]:
    """Ask a route again and again, hold each answer against the document, and return the statuses."""
    seen = set()

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def answers_as_it_says(case: Any) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        seen.add(case.call_and_validate(headers=headers, checks=HELD, timeout=20).status_code)

    answers_as_it_says()
    return seen


def test_every_route_answers_as_the_document_says_whatever_it_is_asked(net: Any, schema: Any) -> None:
    token = net.person(epoch=1)._token
    asked = {op.label: _answers(op, token) for op in _operations(schema)}
    assert len(asked) > 25
    assert {200, 400, 404} <= set().union(*asked.values())


def test_everything_but_what_the_operator_reads_is_under_a_version(net: Any) -> None:
    paths = net.ask("GET", "/openapi.json").json()["paths"]
    assert {p for p in paths if not p.startswith("/v1/")} == {"/healthz", "/readyz", "/metrics"}


def test_what_has_a_body_says_what_is_in_it(net: Any) -> None:
    document = net.ask("GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            for status, answer in route["responses"].items():
                if status != "304":
                    assert answer.get("content"), (path, method, status)
                    assert all(c.get("schema") for c in answer["content"].values()), (path, method, status)
