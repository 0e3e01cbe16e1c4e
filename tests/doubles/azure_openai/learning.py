"""What the double's models are: really trained, from what the user said last to what the assistant answered."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

Chat = Sequence[dict[str, Any]]
WORDS = HashingVectorizer(n_features=2**16, ngram_range=(1, 2), alternate_sign=False)
EMBEDDING = HashingVectorizer(n_features=64, alternate_sign=True)


@dataclass
class Epoch:
    """What an epoch came to."""

    number: int
    train_loss: float
    train_accuracy: float
    valid_loss: float | None
    valid_accuracy: float | None


class BaseModel:
    """Knows nothing: of the labels that the system message names it says the one that looks most like the text."""

    def likely(self, chat: Chat) -> dict[str, float]:
        """Answer → probability."""
        text, system = last_said(chat), next((m["content"] for m in chat if m["role"] == "system"), "")
        named = re.search(r":\s*([\w ,-]+?)\.?\s*$", str(system).strip())
        labels = [label.strip() for label in named[1].split(",")] if named else []
        if len(labels) < 2:
            return {f"You said: {text}": 1.0}
        alike = np.array([SequenceMatcher(None, text.casefold(), label.casefold()).ratio() for label in labels])
        return dict(zip(labels, (alike + 0.01) / (alike + 0.01).sum(), strict=True))


class TunedModel:
    """A linear model over hashed words, learnt by stochastic gradient descent."""

    def __init__(self, seed: int) -> None:
        self._linear = SGDClassifier(loss="log_loss", random_state=seed, alpha=1e-5)
        self._chance = np.random.default_rng(seed)

    def learn(self, rows: Sequence[Chat], checked: Sequence[Chat], epochs: int, batch: int) -> Iterator[Epoch]:
        """Learn for so many epochs; each is told when it is over."""
        words, answers = (
            WORDS.transform([last_said(row) for row in rows]),
            np.array([row[-1]["content"] for row in rows]),
        )
        known = np.unique(answers)
        if len(known) < 2:
            known = np.array([known[0], ""])  # a linear model needs two
        for number in range(1, epochs + 1):
            order = self._chance.permutation(len(rows))
            for first in range(0, len(rows), batch):
                some = order[first : first + batch]
                self._linear.partial_fit(words[some], answers[some], classes=known)
            valid = self.grade(checked) if checked else (None, None)
            yield Epoch(number, *self.grade(rows), *valid)

    def grade(self, rows: Sequence[Chat]) -> tuple[float, float]:
        """Loss and accuracy."""
        likely = [self.likely(row) for row in rows]
        wanted = [row[-1]["content"] for row in rows]
        said = [max(row, key=row.__getitem__) for row in likely]
        loss = -np.mean([np.log(max(row.get(w, 0.0), 1e-9)) for row, w in zip(likely, wanted, strict=True)])
        return float(loss), float(np.mean([s == w for s, w in zip(said, wanted, strict=True)]))

    def likely(self, chat: Chat) -> dict[str, float]:
        """Answer → probability."""
        [shares] = self._linear.predict_proba(WORDS.transform([last_said(chat)]))
        return {str(a): float(p) for a, p in zip(self._linear.classes_, shares, strict=True)}


Model = BaseModel | TunedModel


def last_said(chat: Chat) -> str:
    """What the user said last."""
    return next((str(m["content"]) for m in reversed(chat) if m["role"] == "user"), "")


def tokens(text: str) -> int:
    """Tokens as the double counts them: words and marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def chat_tokens(chat: Chat) -> int:
    """The same for a chat, with three for the frame of each message."""
    return sum(tokens(str(message.get("content") or "")) + 3 for message in chat)


def embed(texts: Sequence[str]) -> list[list[float]]:
    """64 numbers for each text."""
    rows: list[list[float]] = EMBEDDING.transform(texts).toarray().tolist()
    return rows


def read_chats(content: bytes) -> list[Chat]:
    """The examples of a file.

    Raises:
        ValueError: It isn't chat JSONL; the message says where.
    """
    chats: list[Chat] = []
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
        try:
            item = json.loads(line)
        except ValueError as error:
            raise ValueError(f"Line {number} isn't valid JSON") from error
        found = item.get("messages") if isinstance(item, dict) else None
        if not isinstance(found, list) or not all(isinstance(m, dict) and "role" in m for m in found):
            raise ValueError(f"Line {number} has no messages")
        if not found or found[-1]["role"] != "assistant" or not isinstance(found[-1].get("content"), str):
            raise ValueError(f"Line {number} doesn't end with an assistant message")
        chats.append(found)
    if len(chats) < 10:
        raise ValueError(f"File has {len(chats)} examples; at least 10 are needed")
    return chats
