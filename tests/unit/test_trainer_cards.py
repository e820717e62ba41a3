"""Cards, plots, pages and event files: complete or absent, the same again, and nothing that a name says is obeyed."""

from __future__ import annotations

import json
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given as drawn
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.toys import small
from trainer import card, figures, measured, report, run, tensorboard
from trainer.__main__ import main
from trainer.diary import COST, METRICS, Cost
from trainer.errors import RegistryError
from trainer.measured import EVALUATION, Measured
from trainer.plot import Series, chart, ticks
from trainer.preferences import Comparison, write_snapshot
from trainer.registry import RECORD, Entry

HOSTILE = (
    "<script>alert(1)</script>](javascript:x) | `\n# big\n--- \x00 \ud800 & \"' **b** "
    "https://evil.example www.evil.example"
)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-9, 9)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a registry of a supervised model and two retrainings, the second of the same as the first."""
    home = tmp_path_factory.mktemp("cards")
    sft = small(home)
    run.bootstrap(sft)
    rows = [Comparison(f"day {n}?", "good it was", "bad", 900_000, 2, 0) for n in range(40)]
    sha256 = write_snapshot(home / "s.jsonl", rows)
    for name in ("policy-1", "policy-2"):
        wanted = replace(sft, name=name)
        run.retrain(wanted, parent="sft-0", reference=None, snapshot=home / "s.jsonl", sha256=sha256)
    return home


def entry(**changes: Any) -> Entry:
    given = Entry("p", "policy", "sft", "aa", {"method": "ppo"}, 0, {"kl": 1.0}, "bb", "cc", 0)
    return replace(given, **changes)


def hostile() -> Measured:
    """Return an entry whose every text is hostile."""
    told = {"loss": 1.0, HOSTILE: 2.0}
    lines = [{"stage": "reward", "step": n, "of": 3, "metrics": told, "at": 1.0} for n in (1, 2, 3)]
    bad = entry(
        name=HOSTILE, parent=HOSTILE, data_sha256=HOSTILE, code_version=HOSTILE, weights_sha256=HOSTILE,
        config={"method": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}}, metrics={HOSTILE: 1.0, f"{HOSTILE}_low": 0.0},
    )  # fmt: skip
    return Measured(bad, lines, {HOSTILE: Cost(1, 2, 3, 1)})


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - drawn here


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.texts.setdefault(self.found[-1][0], []).append(data)


# --- plots ----------------------------------------------------------------------------------------------------


@drawn(
    st.lists(st.tuples(st.text(max_size=9), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=9)), max_size=9)
)
def test_a_chart_is_well_formed_and_stays_within_its_frame(lines: list[tuple[str, Any]]) -> None:
    root = parsed(chart("t", "x", [Series(n, p, slot=i) for i, (n, p) in enumerate(lines)]))
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 40 <= x <= 360
            assert 20 <= y <= 220


def test_a_higher_value_is_drawn_higher_and_a_later_step_further_right() -> None:
    root = parsed(chart("t", "x", [Series("s", [(1, 5.0), (2, 7.0), (4, -1.0)])]))
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    (x1, y1), (x2, y2), (x3, y3) = (map(float, p.split(",")) for p in line.attrib["points"].split())
    assert x1 < x2 < x3
    assert x3 - x2 == pytest.approx(2 * (x2 - x1), abs=0.2)
    assert y2 < y1 < y3


@drawn(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_a_few_round_numbers_within_the_range(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)
    steps = {round((b - a) / (found[1] - found[0]), 3) for a, b in pairwise(found)}
    assert steps == {1.0}


# --- the card -------------------------------------------------------------------------------------------------


def test_an_entry_has_a_card_with_all_that_it_follows_from(home: Path) -> None:
    registry = small(home).registry
    made, folder = registry.get("policy-1"), registry.path("policy-1")
    text = (folder / card.CARD).read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["model_name"], front["base_model"]) == ("policy-1", "sft-0")
    for said in (made.data_sha256, made.weights_sha256, made.code_version, "What it cost", "## Limits"):
        assert said in text
    settings = json.loads(text.split("```json\n")[1].split("\n```")[0])
    assert settings == made.config
    names = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert {f"plots/{name}.svg" for name in ("ppo-reward", "ppo-kl", "calibration", "gold-by-kl")} <= set(
        names
    )
    assert sorted(names) == sorted(str(file.relative_to(folder)) for file in folder.glob("plots/*"))
    for name in names:
        parsed((folder / name).read_text(encoding="utf-8"))


def test_every_metric_is_on_the_card_once_with_its_interval() -> None:
    metrics = {"kl": 2.0, "win_rate_sft": 0.75, "win_rate_sft_low": 0.5, "win_rate_sft_high": 0.9, "win_rate_sft_n": 8.0,
               "ppo_steps": 3.0, "length_words_low": 4.0}  # fmt: skip
    found = {value.name: value.text for value in card.values(metrics)}
    assert found == {
        "win_rate_sft": "0.750 (0.500 to 0.900, n = 8)", "kl": "2", "ppo_steps": "3", "length_words_low": "4",
    }  # fmt: skip


def test_costs_are_summed_and_the_peak_is_the_highest() -> None:
    rows = card.costs({"reward": Cost(1.0, 2.0, 3 << 20, 1), "ppo": Cost(4.0, 5.0, 2 << 20, 3)})
    assert rows[-1] == ("all", "5.0", "7.0", "3", "3")


def test_an_entry_that_is_made_again_differs_only_in_time_and_cost(home: Path) -> None:
    registry = small(home).registry
    folders = [registry.path(name) for name in ("policy-1", "policy-2")]
    listed = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in folders]
    assert listed[0] == listed[1]
    for name in listed[0]:
        first, second = ((folder / name).read_bytes() for folder in folders)
        if name in {RECORD, card.CARD} or name.endswith(".svg"):
            second = second.replace(b"policy-2", b"policy-1")
        if name == METRICS:
            first, second = (b"".join(timeless(data)) for data in (first, second))
        if name == card.CARD:
            first, second = (
                data.split(b"## What it cost")[0] + data.split(b"## Limits")[1] for data in (first, second)
            )
        assert first == second or name == COST, name


def timeless(data: bytes) -> Iterator[bytes]:
    for line in data.splitlines():
        yield json.dumps({key: value for key, value in json.loads(line).items() if key != "at"}).encode()


def test_a_hostile_text_stays_a_text_on_the_card() -> None:
    text = card.card(hostile(), [])
    text.encode("utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["model_name"] == HOSTILE
    rendered = Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body))
    assert {tag for tag, _ in rendered.found} == {
        "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "pre", "code",
    }  # fmt: skip
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in HOSTILE)
    for where in ("h1", "td"):
        assert shown in rendered.texts[where]
    assert json.loads(rendered.texts["code"][0])["method"] == HOSTILE
    assert "https://" not in body.partition("```json")[0]  # what GitHub makes a link of without being asked


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo"])
def test_a_card_says_plainly_where_most_answers_did_not_end(method: str) -> None:
    def of(finished: float) -> str:
        made = entry(config={"method": method}, metrics={f"{method}_finished": finished})
        return card.card(Measured(made), [])

    assert "**75% of the last answers do not end within the limit" in of(0.25)
    assert "answer_tokens" in of(0.25)
    assert "answer_tokens" not in of(0.75)
    assert f"| {method.upper()}'s last answers: share that ends within the limit | 0.75 |" in of(0.75)


# --- the page -------------------------------------------------------------------------------------------------


def test_the_page_compares_runs_and_loads_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "report.html"
    assert main(["report", "--registry", str(home / "models"), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == ["policy-1", "policy-2", "sft-0"]
    text = out.read_text(encoding="utf-8")
    tags = Tags(text).found
    assert not {"script", "link", "img", "iframe", "a"} & {tag for tag, _ in tags}
    assert not any(name in {"src", "href", "style"} or name.startswith("on") for _, a in tags for name in a)
    policy = next(a for tag, a in tags if tag == "meta" and "http-equiv" in a)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    made = small(home).registry.get("policy-1")
    for name, says in card.METRICS.items():
        assert (f"<code>{name}</code>" in text) == (name in made.metrics), says
    assert sum(tag == "svg" for tag, _ in tags) == len(figures.figures([measured.read(small(home).registry, n) for n in
                                                                        ("sft-0", "policy-1", "policy-2")]))  # fmt: skip
    main(["report", "--registry", str(home / "models"), "--out", str(out), "--names", "sft-0"])
    assert "policy-1" not in out.read_text(encoding="utf-8")


def test_a_hostile_text_stays_a_text_on_the_page() -> None:
    page = report.page([hostile(), Measured(entry())])
    page.encode("utf-8")
    known = {tag for tag, _ in Tags(report.page([Measured(entry())])).found}
    drawn_tags = {"svg", "text", "line", "polyline", "path", "circle", "figure", "small"}
    assert {tag for tag, _ in Tags(page).found} <= known | drawn_tags
    assert not any(name.startswith("on") for _, a in Tags(page).found for name in a)


def test_settings_that_differ_are_named_and_others_not() -> None:
    runs = [Measured(entry(config={"ppo": {"steps": n, "clip": 0.2}})) for n in (10, 20)]
    page = report.page(runs)
    assert "<code>ppo.steps</code>" in page
    assert "ppo.clip" not in page


# --- event files ----------------------------------------------------------------------------------------------


def test_checksums_are_those_of_the_standard() -> None:
    """RFC 3720, appendix B.4."""
    assert tensorboard.crc32c(b"123456789") == 0xE3069283
    assert tensorboard.crc32c(bytes(32)) == 0x8A9136AA
    assert tensorboard.crc32c(bytes(range(32))) == 0x46DD794E


def scalars(data: bytes) -> list[tuple[str, int, float]]:
    """Read an event file by the letter of its format, apart from the checksums."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        fields, data = dict(read(data[12 : 12 + length])), data[16 + length :]
        for _, value in read(fields.get(5, b"")):
            tag, number = (v for _, v in read(value))
            found.append((tag.decode(), fields[2], struct.unpack("<f", number)[0]))
    return found


def read(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message of protocol buffers."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            number, shift, at = number | (data[at] & 0x7F) << shift, shift + 7, at + 1
            if data[at - 1] < 0x80:
                return number

    while at < len(data):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = varint() if size is None else size
            yield key >> 3, data[at : at + size]
            at += size


def test_an_event_file_has_every_number_of_every_line_at_its_step() -> None:
    told = [("reward", 20, {"loss": 0.5}), ("reward", 300, {"loss": 0.25}), ("reward", 20, {"loss": 2.0}),
            ("ppo", 1, {"kl": -1.0, "nan": None})]  # fmt: skip
    lines = [{"stage": s, "step": n, "of": 300, "metrics": m, "at": 5.0} for s, n, m in told]
    assert scalars(tensorboard.events(lines)) == [
        ("reward/loss", 20, 0.5), ("reward/loss", 300, 0.25), ("reward.2/loss", 20, 2.0), ("ppo/kl", 1, -1.0),
    ]  # fmt: skip


def test_the_commands_show_an_entry_and_name_what_is_missing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = str(home / "models")
    assert main(["card", "--registry", registry, "--name", "policy-1"]) == 0
    folder = small(home).registry.path("policy-1")
    assert capsys.readouterr().out == (folder / card.CARD).read_text(encoding="utf-8")
    arguments = ["tensorboard", "--registry", registry, "--name", "policy-1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    done = json.loads(capsys.readouterr().out)
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    assert done["lines"] == len(lines)
    assert len(scalars(Path(done["out"]).read_bytes())) == sum(
        len(json.loads(line)["metrics"]) for line in lines
    )
    for command in ("card", "tensorboard", "report"):
        extra = ["--names" if command == "report" else "--name", "policy-9"]
        out = [] if command == "card" else ["--out", str(tmp_path / "x")]
        assert main([command, "--registry", registry, *extra, *out]) == 1
        assert "no entry 'policy-9'; it has:" in capsys.readouterr().err
    assert main(["report", "--registry", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "no entries" in capsys.readouterr().err


def test_an_entry_of_an_older_trainer_is_shown_with_what_it_has(tmp_path: Path) -> None:
    found = measured.of(entry(), tmp_path)
    assert found == Measured(entry())
    assert "kl" in report.page([found])
    for name, text in ((METRICS, "{"), (COST, '{"ppo": {"x": 1}}'), (EVALUATION, "[]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(RegistryError, match="damaged"):
            measured.of(entry(), tmp_path)
        (tmp_path / name).unlink()


def test_the_card_of_a_model_from_elsewhere_claims_no_training_and_no_measurement() -> None:
    made = entry(kind="sft", parent=None, config={"source": "smollm2"}, metrics={})
    text = card.card(replace(hostile(), entry=made, costs={}), [])
    assert "none: imported from smollm2" in text
    assert "imported, not trained here" in text
    assert "Nothing: it was made elsewhere." in text
    for claim in (
        "rlhf",
        "made from scratch",
        "fine-tuning",
        "## What it cost",
        "## Limits",
        "see the plots",
    ):
        assert claim not in text
