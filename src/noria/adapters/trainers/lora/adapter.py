"""A LoRA adapter as llama.cpp reads it: GGUF, written with the `gguf` package alone.

llama.cpp keeps the query and key rows of Llama's attention in another order than transformers (pairs of the rotation
side by side, not half a head apart), so what an adapter adds to those rows has to be put in that order, too. Only
lora_B has rows of the output; lora_A stays as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.domain.errors import InvalidData, InvalidProject

Floats = NDArray[np.float32]
SERVED = {"llama": True, "qwen2": False, "qwen3": False}
"""Architecture by GGUF's name → whether llama.cpp reorders its query and key rows."""
NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
"""Layers by transformers' name → by GGUF's."""
_WEIGHT = re.compile(r"layers\.(\d+)\.[a-z_]+\.([a-z_]+)\.lora_([AB])\.(?:default\.)?weight$")


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model's architecture an adapter depends on.

    Attributes:
        architecture: GGUF's name of it.
        heads: Attention heads.
        key_heads: Heads of the keys and values.
        blocks: Transformer blocks.
        context: Longest context that it was trained for, tokens.
        name: What the model calls itself.
    """

    architecture: str
    heads: int
    key_heads: int
    blocks: int
    context: int = 0
    name: str = ""


def read_shape(file: Path) -> Shape:
    """The shape of the model in a GGUF file.

    Raises:
        InvalidData: It is no GGUF file.
        InvalidProject: Adapters can't be made for its architecture.
    """
    import gguf

    try:
        fields = gguf.GGUFReader(file).fields
    except Exception as error:  # the reader raises whatever NumPy does on bytes that make no sense
        raise InvalidData(
            f"{file.name} can't be read as GGUF: {error}.", "Name a model file as training.base."
        ) from error

    def field(key: str, default: Any = None) -> Any:
        return fields[key].contents() if key in fields else default

    kind = str(field("general.architecture", ""))
    if kind not in SERVED:
        raise InvalidProject(
            f"The trainer lora can't adapt models of the architecture {kind or 'that this file leaves out'}.",
            f"Name one of the architectures {', '.join(SERVED)} as training.base.",
        )
    heads = int(field(f"{kind}.attention.head_count"))
    return Shape(
        architecture=kind,
        heads=heads,
        key_heads=int(field(f"{kind}.attention.head_count_kv", heads)),
        blocks=int(field(f"{kind}.block_count")),
        context=int(field(f"{kind}.context_length", 0)),
        name=str(field("general.name", "")),
    )


def reorder(rows: Floats, heads: int) -> Floats:
    """Rows of a query or key projection in llama.cpp's order: within each head, row i and row i + half side by side."""
    size = rows.shape[0] // heads
    if rows.shape[0] % heads or size % 2:
        raise InvalidData(
            f"{rows.shape[0]} rows can't be those of {heads} attention heads.", "Train the adapter on this base again."
        )
    halves = rows.reshape(heads, 2, size // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def convert(tensors: Mapping[str, Floats], shape: Shape) -> dict[str, Floats]:
    """An adapter's tensors by peft's names → by GGUF's, rows in llama.cpp's order.

    Raises:
        InvalidData: One of them is no such tensor, or half of a pair is missing.
    """
    made: dict[str, Floats] = {}
    for name, values in tensors.items():
        found = _WEIGHT.search(name)
        if found is None or found[2] not in NAMES:
            raise InvalidData(f"The adapter has a tensor {name} that llama.cpp doesn't know.", "Choose other targets.")
        block, layer, side = found.groups()
        if side == "B" and SERVED[shape.architecture] and layer in ("q_proj", "k_proj"):
            values = reorder(values, shape.heads if layer == "q_proj" else shape.key_heads)
        made[f"blk.{block}.{NAMES[layer]}.weight.lora_{side.lower()}"] = np.ascontiguousarray(values, np.float32)
    pairs = {name[:-1] for name in made}
    if len(made) != 2 * len(pairs):
        raise InvalidData("The adapter lacks one of a pair of matrices.", "Train it again.")
    return dict(sorted(made.items()))


def write(path: Path, tensors: Mapping[str, Floats], shape: Shape, alpha: float) -> Path:
    """Write an adapter.

    Args:
        path: The file to write.
        tensors: By peft's names, such as `….layers.0.self_attn.q_proj.lora_A.weight`.
        shape: The base's.
        alpha: As trained; llama.cpp divides it by the rank, which it reads off the matrices.
    """
    import gguf

    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(f"LoRA over {shape.name or shape.architecture}")
    for name, values in convert(tensors, shape).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
