"""A small server of OpenAI's wire, to be started as a command: `python serve_chat.py PORT [--called NAME] [--deaf]`.

It takes only its own name for the model, as vLLM does, and starts a child of its own, as vLLM does.
"""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(sys.argv[1])
CALLED = sys.argv[sys.argv.index("--called") + 1] if "--called" in sys.argv else "assistant"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200 if self.path == "/health/ready" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("model") != CALLED:
            return self.reply(404, {"error": {"message": f"The model {body.get('model')} does not exist."}})
        said = f"{os.environ.get('TONE', '')}You said: {body['messages'][-1]['content']}"
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": CALLED, "choices": choices}
        return self.reply(200, {**answer, "usage": usage})

    def reply(self, status: int, value: object) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


if "--fails" in sys.argv:
    print("loading weights")
    sys.exit("no weights are there")
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(f"helper {helper.pid} of {os.getpid()}", flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
