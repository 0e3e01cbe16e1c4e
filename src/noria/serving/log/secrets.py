"""What keys, tokens and passwords look like: by their issuers' prefixes, or by the word before them."""

import re
from typing import Final

SECRET: Final = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^-\udfff]|-(?!----))*"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
            r"\b(?:sk|pk|rk|whsec|xai|gsk|pplx)[-_][A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, Noria, Stripe, xAI, Groq
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})",
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS
            r"\b[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{27}\b",  # Azure OpenAI and other Azure services
            r"\b[A-Za-z0-9_~.]{3}8Q~[A-Za-z0-9_~.-]{31,34}",  # Microsoft Entra client secrets
            r"\b(?:AIza[\w-]{35}|ya29\.[\w-]{20,})",  # Google
            r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",  # Slack
            r"(?<=hooks\.slack\.com/services/)[A-Z0-9]{8,}/[A-Z0-9]{8,}/[A-Za-z0-9]{16,}",
            r"\b(?:dapi|dose)[0-9a-f]{32}(?:-\d)?",  # Databricks
            r"\b(?:hf|npm|r8)_[A-Za-z0-9]{30,}",
            r"\bpypi-[\w-]{40,}",
            r"\bSG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
            r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?",  # JSON web tokens
            r"(?i:(?<=accountkey=)|(?<=sharedaccesskey=)|(?<=sig=))[A-Za-z0-9+/%]{40,}={0,2}",  # Azure storage
            r"(?i:(?<=bearer ))[\w.~+/=-]{16,}",
            r"(?<=://)[^\s/:@\[\]]{1,64}:[^\s/@\[\]]{1,128}(?=@)",  # in a URL
            r"(?i:(?<=password=)|(?<=password: )|(?<=passwd=)|(?<=secret=)|(?<=api_key=)|(?<=apikey=)"
            r"|(?<=api-key: )|(?<=access_token=)|(?<=access_key=)|(?<=access_key = ))[^\s\[\]&;,\"']{6,}",
        )
    )
)
_LONG: Final = (
    *(b"sk-", b"sk_", b"pk-", b"pk_", b"rk-", b"rk_", b"whsec", b"xai-", b"xai_", b"gsk_", b"gsk-", b"pplx"),
    *(b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"akia", b"asia", b"jqqj9", b"8q~"),
    *(b"aiza", b"ya29", b"xox", b"/services/", b"dapi", b"dose", b"hf_", b"npm_", b"r8_", b"pypi-", b"sg.", b"eyj"),
    *(b"accountkey=", b"sharedaccesskey=", b"sig="),
)
"""A secret without a mark before it is a long word that holds one of these, in lower case."""
_HINT: Final = re.compile(b"|".join(map(re.escape, _LONG)))
_SHORTEST: Final = 14
"""No secret of that kind is shorter."""
_MARKED: Final = ("://", "password: ", "api-key: ", "private key", "access_key = ", "bearer ")
_EQUAL: Final = ("password=", "passwd=", "secret=", "api_key=", "apikey=", "access_token=", "access_key=")
_WORDS: Final = bytes(
    ord(chr(n).lower()) if n < 128 and (chr(n).isalnum() or n in b"_-./+=%~") else 32 for n in range(256)
)
_ALIKE: Final = bytes(32 if n == 32 else 97 for n in range(256))
_LONG_WORD: Final = b"a" * _SHORTEST


def may_hold_secret(text: str) -> bool:
    """Whether a text may hold a secret: no secret gets past this, and most texts without one don't either."""
    lower = text.lower()
    for mark in _MARKED:
        if mark in lower:
            return True
    if "=" in lower and any(mark in lower for mark in _EQUAL):
        return True
    words = text.encode(errors="replace").translate(_WORDS)
    alike = words.translate(_ALIKE)
    begin = alike.find(_LONG_WORD)
    while begin >= 0:
        end = alike.find(b" ", begin)
        if _HINT.search(words, begin, end if end >= 0 else len(words)):
            return True
        begin = alike.find(_LONG_WORD, end) if end >= 0 else -1
    return False
