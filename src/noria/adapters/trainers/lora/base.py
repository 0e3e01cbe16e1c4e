"""The language model that an adapter is trained over, loaded from the very file that llama.cpp serves."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noria.adapters.prompts.base import named
from noria.adapters.trainers.lora.options import Options
from noria.domain.errors import InvalidProject, MissingExtra
from noria.domain.prompt import Base

_NEEDED = ("torch", "transformers", "peft", "gguf")


def demand_extra() -> None:
    """See that everything is installed that training needs.

    Raises:
        MissingExtra: Something isn't.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"The trainer lora needs {', '.join(missing)}.", "Run pip install 'noria[torch]'.")


def demand_file(base: Mapping[str, Any]) -> Base:
    """The base that a job starts from: a model file, known by its checksum.

    Raises:
        InvalidProject: It names none, or one that somebody else serves.
        InvalidData: The file isn't there.
    """
    if not base.get("gguf"):
        raise InvalidProject(
            "The trainer lora needs a model file to start from.",
            "Name one as training.base: {gguf: path or python:PACKAGE/FILE, licence: …, source: …}.",
        )
    return named(base)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base in memory, with the device that it computes on."""

    model: Any
    tokenizer: Any
    device: str
    dtype: str


def load(file: Path, options: Options) -> Loaded:
    """Load a GGUF file's weights as a plain dense model.

    Raises:
        InvalidProject: A GPU is asked for and there is none.
    """
    import torch
    import transformers

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidProject("There is no CUDA device here.", "Write device: auto or cpu in training.parameters.")
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = options.dtype if options.dtype != "auto" else ("bfloat16" if _multiplies_bfloat16(device) else "float32")
    more = {}
    if hasattr(transformers, "GgufConfig"):  # newer ones keep weights packed unless they are told not to
        more["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=getattr(torch, dtype), attn_implementation="sdpa", **more
        )
    model.hf_quantizer = None  # the weights are dense now; peft would look for packed ones
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.use_cache = False
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return Loaded(model.to(device).eval(), tokenizer, device, dtype)


def _multiplies_bfloat16(device: str) -> bool:
    """Whether bfloat16 is fast there: on today's GPUs, and on CPUs that have instructions for it."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = Path("/proc/cpuinfo").read_text(errors="replace") if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While models are loaded: no progress bars in the worker's log, and no warnings that are not about us."""
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)
