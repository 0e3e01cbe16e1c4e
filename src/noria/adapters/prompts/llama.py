"""A base in llama.cpp inside this process: how probable each label is as an answer, and free answers.

A label's probability takes one pass over what is new in the prompt: where labels differ in their first token, as they
mostly do, that token's distribution among them says it all; where they begin alike, the same is asked again behind what
they share. The instructions in front stay in llama.cpp's cache. What callers write is turned into tokens apart from the
chat template, so that no text can play the part of one of the template's marks.
"""

import http.client
import json
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from noria.adapters.hosts.llamacpp import GgufOptions, start
from noria.adapters.prompts.base import weights
from noria.adapters.prompts.filling import Message
from noria.adapters.prompts.labels import forks, likely, ways
from noria.domain.errors import InvalidRequest, UpstreamFailed
from noria.domain.prompt import Base

BIAS = 100.0
"""Added to the logits of what may come next: nothing else then has any probability worth a digit."""
_MARK = "zq{}qz"
"""Stands for a message's content while the chat template is applied."""
_TIMEOUT_S = 600.0

Prompted = list[str | int]
"""A prompt as llama.cpp takes it: words with the template's marks, and tokens."""


class LlamaBase:
    """A model file, perhaps with a LoRA adapter, that is asked directly.

    Args:
        base: The model file.
        adapter: The adapter in GGUF.

    Raises:
        MissingExtra: xllamacpp isn't installed.
        InvalidData: The file is gone, or another one.
        UpstreamFailed: llama.cpp can't load it.
    """

    def __init__(self, base: Base, adapter: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="noria-"))
        self.url = f"unix:{self._folder / 'base.sock'}"
        self._server: Any = None
        try:
            options = GgufOptions(
                file=weights(base),
                listen=self.url,
                name="base",
                context=base.context,
                threads=base.threads,
                slots=base.slots,
                adapter=adapter,
            )
            self._server = start(options)
        except BaseException:
            self.close()
            raise
        self._context = base.context
        self._tokens = lru_cache(maxsize=2048)(self._tokenise)
        self._skeletons: dict[tuple[str, ...], list[str]] = {}
        self._parted: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {}

    def classify(self, chats: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[dict[str, float]]:
        """Label → probability for each chat, given that the answer is one of the labels.

        Raises:
            InvalidRequest: A chat is longer than the context.
        """
        parted = self._ways(tuple(labels))
        prompts = [self._prompt(chat) for chat in chats]
        shares = {path: self._next(prompts, path, tokens) for path, tokens in forks(parted).items()}
        return [likely(parted, {path: rows[row] for path, rows in shares.items()}) for row in range(len(chats))]

    def complete(self, chats: Sequence[Sequence[Message]], parameters: Mapping[str, Any]) -> list[str]:
        """The answer to each chat, in words.

        Raises:
            InvalidRequest: llama.cpp can't do what is asked, or a chat is too long.
        """
        answers = []
        for chat in chats:
            asked = {"temperature": 0, "max_tokens": 256, **parameters, "messages": list(chat), "stream": False}
            reply = self._sound(self._server.handle_chat_completions(asked))
            answers.append(str(reply["choices"][0]["message"].get("content") or ""))
        return answers

    @property
    def knows_probabilities(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Stop, and give the memory back."""
        self._server = None  # its end waits for llama.cpp's own threads
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- prompts as tokens --------------------------------------------------------------------------------------------

    def _prompt(self, chat: Sequence[Message]) -> Prompted:
        pieces = self._skeleton(tuple(message["role"] for message in chat))
        ready: Prompted = [pieces[0]]
        for message, piece in zip(chat, pieces[1:], strict=True):
            ready += [*self._tokens(message["content"]), piece]
        return [part for part in ready if part != ""]

    def _skeleton(self, roles: tuple[str, ...]) -> list[str]:
        """What the chat template writes around the contents of messages with those roles."""
        if roles not in self._skeletons:
            marks = [_MARK.format(place) for place in range(len(roles))]
            messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
            rest, pieces = self._post("/apply-template", {"messages": messages})["prompt"], []
            for mark in marks:
                piece, found, rest = rest.partition(mark)
                if not found:
                    raise UpstreamFailed(
                        f"The base's chat template leaves a message of the roles {', '.join(roles)} out.",
                        "Write the prompt with the roles that the model knows, mostly system, user and assistant.",
                    )
                pieces.append(piece)
            self._skeletons[roles] = [*pieces, rest]
        return self._skeletons[roles]

    def _ways(self, labels: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        if labels not in self._parted:
            self._parted[labels] = ways({label: self._tokens(label) for label in labels}, self._end)
        return self._parted[labels]

    def _end(self) -> int:
        """The token that ends a turn of the assistant."""
        after = self._skeleton(("user", "assistant", "user"))[2]
        tokens = self._post("/tokenize", {"content": after, "add_special": False, "parse_special": True})["tokens"]
        return int(tokens[0])

    def _tokenise(self, text: str) -> tuple[int, ...]:
        asked = {"content": text, "add_special": False, "parse_special": False}
        return tuple(self._post("/tokenize", asked)["tokens"])

    # --- llama.cpp ----------------------------------------------------------------------------------------------------

    def _next(
        self, prompts: Sequence[Prompted], path: tuple[int, ...], tokens: tuple[int, ...]
    ) -> list[dict[int, float]]:
        """Behind each prompt and a path: token → its probability among those tokens."""
        body = {
            "prompt": [[*prompt, *path] for prompt in prompts],
            "max_tokens": 1,
            "logprobs": len(tokens),
            "n_probs": len(tokens),
            "post_sampling_probs": True,
            "samplers": ["temperature"],
            "temperature": 1.0,
            "logit_bias": [[token, BIAS] for token in tokens],
            "cache_prompt": True,
        }
        choices = sorted(self._sound(self._server.handle_completions(body))["choices"], key=lambda c: c["index"])
        shares = []
        for choice in choices:
            found = {p["id"]: float(p["prob"]) for p in choice["logprobs"]["content"][0]["top_probs"]}
            ours = {token: found.get(token, 0.0) for token in tokens}
            total = sum(ours.values())
            shares.append({t: p / total for t, p in ours.items()} if total else dict.fromkeys(tokens, 1 / len(tokens)))
        return shares

    def _sound(self, reply: Any) -> dict[str, Any]:
        said: dict[str, Any] = reply if isinstance(reply, dict) else json.loads(reply)
        if (error := said.get("error")) is None:
            return said
        if error.get("type") == "exceed_context_size_error":
            raise InvalidRequest(
                f"The text is too long: with the prompt it has {error.get('n_prompt_tokens')} tokens, "
                f"and the model takes {self._context}.",
                "Send a shorter text, or raise training.base.context and train again.",
            )
        if error.get("code") == 400:
            raise InvalidRequest(f"The model can't be asked so: {error.get('message')}.", "Send other parameters.")
        raise UpstreamFailed(f"llama.cpp failed: {error.get('message')}.", "Its log has the reason.")

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask llama.cpp's own server, for what its module has no function for."""
        try:
            with closing(_Connection(self.url.removeprefix("unix:"))) as connection:
                connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                said: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UpstreamFailed(f"llama.cpp doesn't answer {path}: {error}.", "Its log has the reason.") from error
        return self._sound(said)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("base", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """See `http.client`."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)
