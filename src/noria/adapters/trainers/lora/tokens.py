"""Conversations → tokens by the model's own chat template, with the loss on the answer only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from noria.adapters.trainers.lora.rows import Example, Message
from noria.domain.errors import InvalidData

_SHORTEST = 8
"""Tokens that a text is never cut below."""


class Tokenizer(Protocol):
    """As much of a transformers tokenizer as is used here."""

    chat_template: Any
    eos_token: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A conversation as one text."""
        ...

    def encode(self, text: str, **options: Any) -> list[int]:
        """Text → tokens."""
        ...

    def decode(self, token_ids: Any, **options: Any) -> str:
        """Tokens → text."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a prompt and of the answer to it; `cut` tells whether the text had to be shortened."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    rejected: tuple[int, ...] = ()
    cut: bool = False

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.answer), len(self.rejected))


@dataclass(frozen=True)
class Encoder:
    """Turns examples into tokens.

    Attributes:
        tokenizer: The model's own.
        max_tokens: Longest example, prompt and answer together.
    """

    tokenizer: Tokenizer
    max_tokens: int

    def __post_init__(self) -> None:
        if not self.tokenizer.chat_template:
            raise InvalidData(
                "The base has no chat template, so nobody knows how it is asked.",
                "Name an instruction-tuned model as training.base.",
            )

    def encode(self, example: Example) -> Encoded:
        """An example's tokens; a text that is too long loses its middle, where the least is said.

        Raises:
            InvalidData: It doesn't fit even without its text.
        """
        answer = self.answer(example.answer)
        rejected = self.answer(example.rejected) if example.rejected else ()
        room = self.max_tokens - max(len(answer), len(rejected))
        prompt, cut = self._fitting(example.messages, room)
        return Encoded(prompt, answer, rejected, cut)

    def prompt(self, messages: Sequence[Message], room: int | None = None) -> tuple[int, ...]:
        """A conversation's tokens, up to where the answer begins."""
        return self._fitting(messages, self.max_tokens if room is None else room)[0]

    def answer(self, text: str) -> tuple[int, ...]:
        """An answer's tokens, with the one that ends a turn."""
        return self._tokens(f"{text}{self.tokenizer.eos_token or ''}")

    def _fitting(self, messages: Sequence[Message], room: int) -> tuple[tuple[int, ...], bool]:
        tokens = self._prompt(messages)
        if len(tokens) <= room:
            return tokens, False
        longest = max(range(len(messages)), key=lambda i: len(messages[i]["content"]))
        words = self._tokens(messages[longest]["content"])
        kept = len(words) - (len(tokens) - room)
        while kept >= _SHORTEST:
            shorter = _without_middle(words, kept)
            text = f"{self.tokenizer.decode(shorter[0])} … {self.tokenizer.decode(shorter[1])}"
            tokens = self._prompt([*messages[:longest], _said(messages[longest], text), *messages[longest + 1 :]])
            if len(tokens) <= room:
                return tokens, True
            kept -= max(1, len(tokens) - room)
        raise InvalidData(
            f"An example needs more than {self.max_tokens} tokens even with its text cut short.",
            "Raise training.parameters.max_tokens, or shorten the instruction and the answers.",
        )

    def _prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """By way of a text, as llama.cpp's server does it: the same tokens there and here."""
        text = self.tokenizer.apply_chat_template(
            [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
        )
        return self._tokens(text)

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))


def _without_middle(tokens: Sequence[int], kept: int) -> tuple[Sequence[int], Sequence[int]]:
    """The first and the last of some tokens, `kept` in all."""
    return tokens[: kept - kept // 2], tokens[len(tokens) - kept // 2 :]


def _said(message: Message, text: str) -> Mapping[str, str]:
    return {"role": message["role"], "content": text}


def first_difference(answers: Sequence[Sequence[int]]) -> int | None:
    """How many tokens some answers begin with together, if they all differ in the next one; None if they don't.

    Then that one token tells them apart, and asking a model for it tells how probable each of them is.
    """
    shared = 0
    while all(len(a) > shared for a in answers) and len({a[shared] for a in answers}) == 1:
        shared += 1
    apart = all(len(a) > shared for a in answers) and len({a[shared] for a in answers}) == len(answers)
    return shared if apart else None
