"""Fine-tune a small language model: a low-rank adapter (LoRA) over a model file that is never changed.

From labelled answers by maximum likelihood (SFT), from preferred and refused answers by DPO too; on a GPU where there
is one, else on the CPU. The adapter is written as GGUF, so that llama.cpp serves it over the same file: a version is a
prompt and a few megabytes. What is slow to import waits until there is work.

Sources: Hu et al. 2021 (LoRA), Rafailov et al. 2023 (DPO), Pang et al. 2024 (the chosen answer's
likelihood beside it).
"""

from noria.adapters.trainers.lora.trainer import LoraTrainer

__all__ = ["LoraTrainer"]
