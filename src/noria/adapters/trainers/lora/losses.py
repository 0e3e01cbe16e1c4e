"""How well a batch of answers is told, and how far from what was refused: the two losses, in torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noria.adapters.trainers.lora.tokens import Encoded


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch on the device: token ids, what is real, and of which tokens the loss is taken."""

    ids: Any
    real: Any
    answer: Any

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return int(self.real.sum())


def pad(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: str) -> Padded:
    """Put prompts and answers side by side, filled up on the right."""
    import torch

    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    real, answer = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (asked, said) in enumerate(zip(prompts, answers, strict=True)):
        end = len(asked) + len(said)
        ids[row, :end] = torch.tensor([*asked, *said])
        real[row, :end] = 1
        answer[row, len(asked) : end] = True
    return Padded(ids.to(device), real.to(device), answer.to(device))


def log_likelihoods(model: Any, batch: Padded) -> Any:
    """Log-probability of each row's answer (natural log), one number a row.

    The vocabulary's logits are the largest thing there is: they are computed only where an answer's token comes next.
    """
    import torch

    hidden = backbone(model)(input_ids=batch.ids, attention_mask=batch.real, use_cache=False).last_hidden_state
    before = torch.zeros_like(batch.answer)
    before[:, :-1] = batch.answer[:, 1:]
    logits = head(model)(hidden[before]).float()
    said = batch.ids[batch.answer]
    each = torch.log_softmax(logits, -1).gather(1, said[:, None])[:, 0]
    rows = batch.answer.nonzero()[:, 0]
    return torch.zeros(len(batch.ids), device=each.device).index_add(0, rows, each)


def backbone(model: Any) -> Any:
    """The model without its head, adapters included."""
    return causal(model).base_model


def head(model: Any) -> Any:
    """What makes logits of hidden states."""
    return causal(model).get_output_embeddings()


def causal(model: Any) -> Any:
    """The language model inside peft's wrapping, which puts its adapters into the model's own layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def sft_loss(model: Any, batch: Sequence[Encoded], device: str) -> tuple[Any, int]:
    """Mean negative log-likelihood of an answer's token, and how many tokens were read."""
    padded = pad([e.prompt for e in batch], [e.answer for e in batch], device)
    return -log_likelihoods(model, padded).sum() / padded.answer.sum(), padded.tokens


def dpo_loss(model: Any, batch: Sequence[Encoded], device: str, beta: float, sft_weight: float) -> tuple[Any, int]:
    """Direct preference optimisation on the rows that have a refused answer; the chosen answers' likelihood on all.

    The base is what it is compared with: the same model with its adapter switched off.
    """
    import torch
    from torch.nn.functional import logsigmoid

    pairs = [e for e in batch if e.rejected]
    alone = [e for e in batch if not e.rejected]
    asked = [e.prompt for e in (*pairs, *pairs, *alone)]
    said = [*(e.answer for e in pairs), *(e.rejected for e in pairs), *(e.answer for e in alone)]
    padded = pad(asked, said, device)
    now = log_likelihoods(model, padded)
    many = len(pairs)
    wanted = [*range(many), *range(2 * many, len(asked))]
    loss = -sft_weight * now[wanted].sum() / padded.answer[wanted].sum()
    if many:
        with torch.no_grad(), model.disable_adapter():
            base = log_likelihoods(model, padded)
        gained = (now - base)[:many] - (now - base)[many : 2 * many]
        loss = loss - logsigmoid(beta * gained).mean()
    return loss, padded.tokens
