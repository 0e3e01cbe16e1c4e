"""Where inference is asked for: one table that routes, and that the description at `/openapi.json` is made from."""

from dataclasses import dataclass

from noria.serving.wires import Form


@dataclass(frozen=True, slots=True)
class Address:
    """One place to ask.

    Attributes:
        path: With `{endpoint}` where the endpoint's name stands; without it the default endpoint or the body's `model`.
        form: How requests are put there.
        wire: Whose address it is, for people.
    """

    path: str
    form: Form
    wire: str

    @property
    def named(self) -> bool:
        """Whether the address names the endpoint."""
        return "{endpoint}" in self.path


_OPENAI = (("chat/completions", Form.CHAT), ("completions", Form.COMPLETIONS), ("embeddings", Form.EMBEDDINGS))
ADDRESSES = (
    Address("/predict", Form.PREDICT, "Noria"),
    Address("/predict/{endpoint}", Form.PREDICT, "Noria"),
    Address("/invocations", Form.INVOCATIONS, "MLflow"),
    Address("/endpoints/{endpoint}/invocations", Form.INVOCATIONS, "MLflow"),
    Address("/serving-endpoints/{endpoint}/invocations", Form.INVOCATIONS, "Databricks"),
    *(Address(f"/v1/{path}", form, "OpenAI") for path, form in _OPENAI),
    *(Address(f"/openai/v1/{path}", form, "Azure OpenAI") for path, form in _OPENAI),
    *(Address(f"/openai/deployments/{{endpoint}}/{path}", form, "Azure OpenAI, classic") for path, form in _OPENAI),
)
OPENAI_PREFIXES = ("/v1/", "/openai/")
"""Below these every problem is told in OpenAI's shape, whatever is asked for."""
_FIXED = {a.path: (a.form, "") for a in ADDRESSES if not a.named}
_NAMED = tuple((a.path.partition("{")[0], a.path.partition("}")[2], a.form) for a in ADDRESSES if a.named)


def address(path: str) -> tuple[Form, str] | None:
    """Form and endpoint (empty if the address names none) of an inference address; None for any other."""
    found = _FIXED.get(path)
    if found is not None:
        return found
    for before, after, form in _NAMED:
        if path.startswith(before) and path.endswith(after):
            name = path[len(before) : len(path) - len(after)]
            if name and "/" not in name:
                return form, name
    return None


def template(path: str) -> str:
    """The address in the table that a path is at, with `{endpoint}` in the place of a name; empty if it is at none."""
    if path in _FIXED:
        return path
    found = address(path)
    if found is None:
        return ""
    before, after = next((b, a) for b, a, _ in _NAMED if path == f"{b}{found[1]}{a}")
    return f"{before}{{endpoint}}{after}"
