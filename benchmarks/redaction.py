"""What redaction costs, and how often it takes out what it shouldn't: `python -m benchmarks.redaction [FILE.csv …]`.

Without files only the cost is measured. Of each file every text column is read; what was taken out is counted by kind
and printed, so that a person can see which of it was right.
"""

import csv
import json
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

from noria.serving.log.redaction import Redactor
from noria.settings import SPELLED

_PROSE = (
    "Could you tell me how I can change the delivery address of my order, because I will be away next week and nobody"
    " is at home to take it? Thanks a lot for your help. "
)
_ANSWER = {
    "id": "chatcmpl-0193f6c0e7b87a3b9d2e1c4f5a6b7c8d",
    "object": "chat.completion",
    "created": 1735689600,
    "model": "assistant/3",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": _PROSE * 2}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 80, "completion_tokens": 60, "total_tokens": 140},
}
BODIES = {
    "question_65_b": {"input": "what is my card's delivery time, it says 3 to 5 days"},
    "chat_request_500_b": {"model": "assistant", "messages": [{"role": "user", "content": _PROSE * 2}], "n": 1},
    "chat_answer_630_b": _ANSWER,
    "with_numbers_100_b": {"input": "I paid 1200 on 2024-05-17 for order 4481-22, flight UA 1234 at 10:45, room 203"},
    "with_an_email_80_b": {"input": "please write to jo.doe@example.com when my card has been sent"},
    "with_a_phone_80_b": {"input": "please call me at (415) 555-2671 when my card has been sent to me"},
}
_REPEATS, _ROUNDS = 2000, 7


def measure() -> dict[str, float]:
    """Microseconds of CPU for each body; the best of some rounds."""
    redactor = Redactor(SPELLED)
    return {name: _cost(redactor, json.dumps(body).encode()) for name, body in BODIES.items()}


def _cost(redactor: Redactor, body: bytes) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_REPEATS):
            redactor.body(body)
        best = min(best, time.process_time() - began)
    return round(best / _REPEATS * 1e6, 1)


def taken(file: Path) -> tuple[int, Counter[str], list[str]]:
    """Texts in a file, codes of what was taken out of them, and the texts it was taken out of, before and after."""
    redactor = Redactor(SPELLED)
    codes: Counter[str] = Counter()
    changed = []
    texts = _texts(file)
    for text in texts:
        clean, found = redactor.text(text)
        codes.update(found)
        if found:
            changed.append(f"{', '.join(found)}: {text!r} → {clean!r}")
    return len(texts), codes, changed


def _texts(file: Path) -> list[str]:
    """All cells of a CSV file, or strings of a JSON file, that hold a few words."""
    if file.suffix == ".json":
        cells = _strings(json.loads(file.read_text(encoding="utf-8", errors="replace")))
    else:
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
    return [cell for cell in cells if cell.count(" ") >= 2]


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def main() -> None:
    """Print costs in microseconds, then what was taken out of each file."""
    costs = measure()
    sys.stdout.write(json.dumps({"microseconds": costs, "median": median(costs.values())}, indent=2) + "\n")
    for name in sys.argv[1:]:
        total, codes, changed = taken(Path(name))
        sys.stdout.write(f"{name}: {total} texts, {dict(codes)}\n" + "".join(f"  {line}\n" for line in changed))


if __name__ == "__main__":
    main()
