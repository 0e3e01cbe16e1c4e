"""A judging model that really listens and speaks OpenAI's wire, and does as a test tells it."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JudgingModel:
    """What it was asked, and how it answers: `says` gets a request's body and gives what the model writes.

    `says` may also give a pair of a status and a body.
    """

    def __init__(self, says):
        self.says = says
        self.asked = []
        self.headers = []
        self.url = ""


def mark_of(body):
    """The mark that a verdict has to carry."""
    return body["messages"][-1]["content"].split("\n")[0]


def case_of(body):
    """What is to be judged."""
    return json.loads(body["messages"][-1]["content"].split("\n")[1])


def as_verdict(score, reason="So it is."):
    """A model that gives every answer that score; a function gets the case."""

    def says(body):
        given = score(case_of(body)) if callable(score) else score
        return json.dumps({"mark": mark_of(body), "score": given, "reason": reason})

    return says


@contextmanager
def judging_model(says):
    """A judging model on a free port of this machine."""
    model = JudgingModel(says)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            model.asked.append(body)
            model.headers.append({name.lower(): value for name, value in self.headers.items()})
            said = model.says(body)
            status, reply = said if isinstance(said, tuple) else (200, completion(said))
            raw = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text):
    """A chat completion of 100 tokens in and 10 out."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage,
    }  # fmt: skip
