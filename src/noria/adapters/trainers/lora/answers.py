"""What a model says to held-out rows: the most probable label, or to a chat the most probable words."""

import math
from collections.abc import Sequence
from typing import Any

from noria.adapters.trainers.lora.losses import backbone, causal, head, log_likelihoods, pad
from noria.adapters.trainers.lora.tokens import Encoder, first_difference
from noria.adapters.trainers.progress import Progress
from noria.adapters.trainers.records import Said

_ROWS = 8
"""Rows that are asked together."""


def classify(
    model: Any,
    device: str,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[str],
    encoder: Encoder,
    progress: Progress | None = None,
) -> Said:
    """The most probable label of each prompt, and its probability among the labels.

    Where one token tells the labels apart only that one is asked for; else each label's whole probability.
    """
    import torch

    said = [encoder.answer(label) for label in labels]
    at = first_difference(said)
    found: list[tuple[str, float]] = [("", 0.0)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            asked = [prompts[i] for i in rows]
            told = _by_token(model, device, asked, said, at) if at is not None else _whole(model, device, asked, said)
            for i, probable in zip(rows, told, strict=True):
                best = max(range(len(labels)), key=probable.__getitem__)
                found[i] = (labels[best], probable[best])
            if progress is not None:
                done = min(start + _ROWS, len(order))
                progress.say(done, len(order), f"answered {done} of {len(order)} held-out rows")
    return Said([label for label, _ in found], [score for _, score in found])


def _by_token(
    model: Any, device: str, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], at: int
) -> list[list[float]]:
    """The labels' probabilities for each prompt, by the one token that tells them apart."""
    import torch

    shared = labels[0][:at]
    batch = pad([[*p, *shared] for p in prompts], [[]] * len(prompts), device)
    hidden = backbone(model)(input_ids=batch.ids, attention_mask=batch.real, use_cache=False).last_hidden_state
    last = batch.real.sum(1) - 1
    logits = head(model)(hidden[torch.arange(len(prompts), device=hidden.device), last]).float()
    told: list[list[float]] = torch.softmax(logits[:, [label[at] for label in labels]], -1).tolist()
    return told


def _whole(
    model: Any, device: str, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The labels' probabilities for each prompt, by all their tokens."""
    import torch

    each = [log_likelihoods(model, pad(prompts, [label] * len(prompts), device)) for label in labels]
    told: list[list[float]] = torch.softmax(torch.stack(each, 1), -1).tolist()
    return told


def answer(model: Any, device: str, prompts: Sequence[Sequence[int]], tokenizer: Any, most: int) -> Said:
    """The most probable words in answer to each prompt, and their mean probability a token."""
    import torch

    language = causal(model)
    end = tokenizer.eos_token_id
    said, scores = [], []
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([list(prompt)], device=device)
            made = language.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                use_cache=True,
                pad_token_id=end,
                eos_token_id=end,
            )[0, ids.shape[1] :].tolist()
            logs = float(log_likelihoods(model, pad([prompt], [made], device))[0]) if made else 0.0
            said.append(tokenizer.decode(made, skip_special_tokens=True).strip())
            scores.append(math.exp(logs / max(1, len(made))))
    return Said(said, scores)
