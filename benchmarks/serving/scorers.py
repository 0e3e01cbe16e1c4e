"""The batching model server beside other servers of the same scikit-learn model, with the same rows."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.serving.load import Load, Target
from benchmarks.serving.peers import Peer
from benchmarks.serving.processes import Server
from benchmarks.serving.rounds import Plan, alternate

TEXT = "The parcel came late and the lid was broken, but your people were friendly and sent a new one the same day."
INVOCATIONS = msgspec.json.encode({"inputs": [TEXT]}).decode()
_SHOP = ("parcel", "lid", "refund", "friendly", "broken", "late", "thanks", "waiting", "invoice", "address", "colour")


def model(folder: Path) -> Path:
    """TF-IDF and a logistic regression on made-up messages, saved as MLflow saves it, with signature and example."""
    import numpy as np
    from mlflow.models import infer_signature
    from mlflow.sklearn import save_model
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    random = np.random.default_rng(7)
    words = [*_SHOP, *TEXT.lower().replace(".", "").replace(",", "").split(), *(f"word{n}" for n in range(5000))]
    texts = [" ".join(random.choice(words, 20)) for _ in range(3000)]
    labels = [("bad", "good", "neutral")[len(text) % 3] for text in texts]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=200)).fit(texts, labels)
    example = np.array([TEXT])
    save_model(
        pipeline,
        str(folder),
        signature=infer_signature(example, pipeline.predict(example)),
        input_example=example,
        pip_requirements=["mlflow", "scikit-learn", "skops"],
    )
    return folder


def noria(folder: Path, work: Path) -> tuple[Server, Target]:
    """Our own model server, alone."""
    options = [
        "--path",
        str(folder),
        "--listen",
        "tcp:127.0.0.1:{port}",
        "--name",
        "bench",
        "--version",
        "1",
        "--trust",
    ]
    server = Server("noria", [sys.executable, "-m", "noria.modelserver", *options], work)
    return server, Target(server.port, "/invocations", INVOCATIONS)


def mlflow_serve(folder: Path) -> Peer:
    """`mlflow models serve`."""
    command = ("mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "--port", "{port}")
    return Peer("mlflow_serve", (), (*command, "--workers", "1"), "/invocations", INVOCATIONS)


def lab_flask(folder: Path) -> Peer:
    """The lab's app: Flask, and the model loaded at every request."""
    source = f"""
import sys

import mlflow.pyfunc
import numpy as np
from flask import Flask, jsonify, request

app = Flask(__name__)


@app.post("/predict")
def predict():
    model = mlflow.pyfunc.load_model({str(folder)!r})
    return jsonify(model.predict(np.array([request.json["input"]])).tolist())


app.run("127.0.0.1", int(sys.argv[1]))
"""
    body = msgspec.json.encode({"input": TEXT}).decode()
    return Peer("lab_flask", (), ("python", "{folder}/app.py", "{port}"), "/predict", body, {"app.py": source})


def mlserver(folder: Path) -> Peer:
    """MLServer with its MLflow runtime, in one process."""
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": 0,
        "use_structured_logging": False,
    }
    spec = {"name": "bench", "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(folder)}}
    start = """
import json, os, pathlib, socket, sys

def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
ports = {"http_port": port, "grpc_port": free(), "metrics_port": free()}
settings = json.loads((folder / "settings.in").read_text()) | ports
(folder / "settings.json").write_text(json.dumps(settings))
os.execvp("mlserver", ["mlserver", "start", str(folder)])
"""
    return Peer(
        "mlserver",
        ("mlserver", "mlserver-mlflow", "mlserver-sklearn"),
        ("python", "{folder}/start.py", "{folder}", "{port}"),
        "/invocations",
        INVOCATIONS,
        {
            "settings.in": msgspec.json.encode(settings).decode(),
            "model-settings.json": msgspec.json.encode(spec).decode(),
            "start.py": start,
        },
    )


def bentoml(folder: Path) -> Peer:
    """BentoML with its adaptive batching."""
    source = f"""
import bentoml
import mlflow.pyfunc
import numpy as np


@bentoml.service(workers=1, traffic={{"timeout": 60}}, logging={{"access": {{"enabled": False}}}})
class Bench:
    def __init__(self) -> None:
        self.model = mlflow.pyfunc.load_model({str(folder)!r})

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, inputs: list[str]) -> list[str]:
        return self.model.predict(np.array(inputs)).tolist()
"""
    command = (
        "bentoml",
        "serve",
        "service:Bench",
        "--working-dir",
        "{folder}",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    )
    return Peer(
        "bentoml",
        ("bentoml", "mlflow", "scikit-learn", "skops"),
        command,
        "/predict",
        INVOCATIONS,
        {"service.py": source},
    )


PEERS: tuple[Callable[[Path], Peer], ...] = (mlflow_serve, mlserver, bentoml, lab_flask)


def measure(
    load: Load, work: Path, folder: Path, plan: Plan, *, with_peers: bool = True
) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures, and the reasons for those that are missing.

    Args:
        load: Who asks.
        work: Folder for what is made.
        folder: The model.
        plan: How much.
        with_peers: Whether other servers are measured, too.
    """
    reasons: dict[str, str] = {}
    targets: dict[str, Target] = {}
    with ExitStack() as stack:
        begun = {"noria": noria(folder, work)}
        for peer in [make(folder) for make in PEERS] if with_peers else []:
            try:
                begun[peer.name] = peer.start(work)
            except RuntimeError as error:
                reasons[peer.name] = str(error)
        for name, (server, target) in begun.items():
            stack.enter_context(server)
            try:
                server.wait(target)
                targets[name] = target
            except RuntimeError as error:
                reasons[name] = str(error)
        every = ("noria", "mlflow_serve", "mlserver", "bentoml", "lab_flask")
        table = alternate(load, targets, {1: ("noria", "mlflow_serve"), 16: every, 64: every[:4]}, plan)
    figures: dict[str, Any] = {
        f"vs_{name}_c{c}": table.ratio("noria", name, c)
        for name, c in (
            ("mlflow_serve", 1),
            ("mlflow_serve", 16),
            ("mlflow_serve", 64),
            ("mlserver", 16),
            ("mlserver", 64),
            ("bentoml", 16),
            ("bentoml", 64),
            ("lab_flask", 16),
        )
    }
    figures["predictions_per_s"] = {f"{name}_c{c}": table.per_s(name, c) for name, c in table.results}
    return figures, reasons | table.failed
