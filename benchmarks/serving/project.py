"""A project with one endpoint whose version is at an address that we say, as if its gates had passed."""

from pathlib import Path

from noria import bootstrap
from noria.domain.endpoint import FULL_WEIGHT, Role, Route, Target, Wire

ENDPOINT = "bench"
YAML = """
project: bench
endpoints:
  bench:
    task: chat
    policy: policies/bench.yaml
    gguf: {gguf: none.gguf, licence: Apache-2.0, source: none}
"""


def make(root: Path, url: str) -> Path:
    """Make the project in a new folder; everything is Noria's default but who answers."""
    (root / "policies").mkdir(parents=True)
    (root / "noria.yaml").write_text(YAML)
    (root / "policies" / "bench.yaml").write_text("{}\n")
    settings = bootstrap.settings(root)
    state = bootstrap.state(settings)
    bootstrap.in_service(settings, state)
    champion = Target(
        model=ENDPOINT, version="1", role=Role.CHAMPION, weight=FULL_WEIGHT, url=url, verdict_id="for a benchmark"
    )
    with state.change("benchmark", "route.changed", ENDPOINT) as change:
        change.put(Route(endpoint=ENDPOINT, wire=Wire.OPENAI, revision=1, targets=(champion,)))
    state.close()
    return root
