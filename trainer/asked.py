"""A language model of ours as lm-evaluation-harness asks one: by our own tokens, template, network and sampler.

lm_eval is an extra (`pip install -e '.[eval]'`); only this file and `harness` import it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.model import TemplateLM

from trainer.errors import TaskError
from trainer.losses import token_logprobs
from trainer.model import LanguageModel
from trainer.progress import Progress, Report
from trainer.sampler import sample
from trainer.scores import Layout
from trainer.sequences import answer_logits, encode, pad, parts

TOKENS = 4096
"""Tokens that are run at once, of sequences of like length, so that long texts do not fill the memory."""
_GENERATION = {"until", "max_gen_toks", "do_sample", "temperature"}
"""What a task may ask of a generation; more would need a sampler of another kind."""

Scored = tuple[tuple[str, str], list[int], list[int]]
"""Texts of context and continuation, and their tokens, as lm_eval hands them on."""


class HarnessLM(TemplateLM):  # type: ignore[misc]  # lm_eval has no types
    """A language model of ours as lm_eval asks one.

    With layout `chat` a task's text is a prompt in the model's own template, and what is scored or generated is the
    beginning of an answer. With `plain` it is the beginning of a text, as base models are measured.
    """

    def __init__(self, language: LanguageModel, layout: Layout, seed: int, report: Report) -> None:
        super().__init__()
        self._language = language
        self._layout = layout
        self._generator = torch.Generator().manual_seed(seed)
        self._report = report
        self.max_length: int = getattr(language.network.config, "max_position_embeddings", 2048)

    @property
    def eot_token_id(self) -> int:
        """Return the token that ends an answer."""
        return self._language.template.end

    @property
    def prefix_token_id(self) -> int:
        """Return the token that stands before a text with no context."""
        return self._language.template.before[0]

    @property
    def tokenizer_name(self) -> str:
        """Return a name that lm_eval keys a cache by, of which no use is made."""
        return "haptic"

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """Return what `_tokens` makes tokens of: the prompt, and how the answer is to begin.

        Our template has one prompt: what a task says as system is its beginning.
        """
        said = [turn["content"] for turn in chat_history]
        opening = "" if add_generation_prompt else said.pop()
        return json.dumps(["".join(said), opening])

    def tok_encode(self, string: str, **_: Any) -> list[int]:
        """Return a text's tokens, and no special ones."""
        return encode(self._language, string)

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Return log π of each continuation, and whether it is what the model would say; without a bar of lm_eval's."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return log π of whole texts, in windows of the most tokens that the network takes."""
        windows = [
            (number, utils.make_disjoint_window(window))
            for number, request in enumerate(requests)
            for window in utils.get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length - 1, 1
            )
        ]
        found = self._loglikelihood_tokens([(("", ""), *window) for _, window in windows])
        sums = [0.0] * len(requests)
        for (number, _), (logprob, _greedy) in zip(windows, found, strict=True):
            sums[number] += logprob
        return sums

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return what the model says, up to the first of a task's stops; the likeliest tokens, unless a task draws."""
        asked = [(request.args[0], _generation(request.args[1])) for request in requests]
        texts = [""] * len(asked)
        for wish in {json.dumps(wish): wish for _, wish in asked}.values():
            most, temperature = int(wish["max_gen_toks"]), float(wish["temperature"])
            limited = replace(self._language, limits=replace(self._language.limits, answer_tokens=most))
            contexts = {
                n: self._tokens(context, most) for n, (context, other) in enumerate(asked) if other == wish
            }
            for rows in self._batches("generate", {n: len(tokens) + most for n, tokens in contexts.items()}):
                drawn = sample(
                    limited, [contexts[n] for n in rows], temperature=temperature, generator=self._generator
                )
                said = drawn.batch.answers
                for n, tokens, mask in zip(rows, said, drawn.batch.answer_mask.bool(), strict=True):
                    texts[n] = self._language.tokenizer.decode(tokens[mask].tolist())
                    for stop in filter(None, wish["until"]):
                        texts[n] = texts[n].split(stop)[0]
        return texts

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self._layout == "plain":
            pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
            return pair
        opening = json.loads(context)[1]
        said, opened = self.tok_encode(opening + continuation), len(self.tok_encode(opening))
        return self._tokens(context, len(said))[: -opened or None] + said[:opened], said[opened:]

    def _tokens(self, context: str, following: int) -> list[int]:
        """Return a context's tokens, so that as many can follow; a prompt that is too long keeps its end."""
        if self._layout == "plain":
            room = self.max_length - following
            self._check(room, following)
            return (self.tok_encode(context) or [self.prefix_token_id])[-room:]
        template = self._language.template
        prompt, opening = json.loads(context)
        opened = self.tok_encode(opening)
        room = self.max_length - following - len(template.before) - len(template.between) - len(opened)
        self._check(room, following)
        return [*template.before, *self.tok_encode(prompt)[-room:], *template.between, *opened]

    def _check(self, room: int, following: int) -> None:
        if room < 1:
            raise TaskError(
                f"a task asks for {following} tokens after its text, and the model takes {self.max_length} in all"
            )

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests: Sequence[Scored], **_: Any) -> list[tuple[float, bool]]:
        """Return log π of each continuation, and whether each of its tokens is the likeliest."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        sizes = {n: len(context) + len(said) for n, (_, context, said) in enumerate(requests) if said}
        for rows in self._batches("score", sizes):
            said = [requests[n][2] for n in rows]
            rooms = [self.max_length - len(tokens) for tokens in said]
            for room, tokens in zip(rooms, said, strict=True):
                self._check(room, len(tokens))
            contexts = [requests[n][1][-room:] for n, room in zip(rows, rooms, strict=True)]
            sums, greedy = [], []
            for part in parts(self._language, pad(contexts, said).to(self._language.device)):
                logits, mask = answer_logits(self._language, part), part.answer_mask
                sums += (token_logprobs(logits, part.answers) * mask).sum(dim=1).tolist()
                greedy += ((logits.argmax(dim=-1) == part.answers) | (mask == 0)).all(dim=1).tolist()
            for n, result in zip(rows, zip(sums, greedy, strict=True), strict=True):
                found[n] = result
        return found

    def _batches(self, stage: str, sizes: Mapping[int, int]) -> Iterator[list[int]]:
        """Yield the numbers of some sequences at a time, the longest first."""
        order = sorted(sizes, key=lambda n: -sizes[n])
        while order:
            rows = order[: max(1, TOKENS // sizes[order[0]])]
            yield rows
            order = order[len(rows) :]
            self._report(Progress(stage, len(sizes) - len(order), len(sizes)))


def _generation(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task wants of a generation, in one form."""
    if unknown := sorted(set(asked) - _GENERATION):
        raise TaskError(
            f"a task asks to generate with {', '.join(unknown)}; known are {', '.join(sorted(_GENERATION))}"
        )
    until = asked.get("until", [])
    return {
        "until": [until] if isinstance(until, str) else list(until),
        "max_gen_toks": asked.get("max_gen_toks", 256),
        "temperature": float(asked.get("temperature", 1.0)) if asked.get("do_sample") else 0.0,
    }
