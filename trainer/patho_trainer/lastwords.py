"""The last words of a pod: why it ended, for the operator and for people, as a termination message."""

import contextlib
import os
import pathlib
from collections.abc import Mapping

from patho_api import names, report

TRUNCATED = " ..."


def file(environ: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Where last words go: what the environment says, else Kubernetes' file where there is one, else nowhere."""
    named = environ.get(names.ENV_TERMINATION_LOG)
    if named:
        return pathlib.Path(named)
    kubernetes = pathlib.Path(names.TERMINATION_LOG)
    return kubernetes if kubernetes.exists() else None


def fit(words: report.LastWords) -> bytes:
    """The words as JSON of at most 4,096 bytes, all that Kubernetes keeps: the sentence is shortened, then results are left out."""
    for message_length, results in ((2048, 16), (1024, 16), (512, 4), (256, 0)):
        shorter = words.model_copy(update={"message": _cut(words.message, message_length), "results": words.results[:results]})
        data = shorter.model_dump_json(by_alias=True, exclude_none=True).encode()
        if len(data) <= report.MAX_LAST_WORDS_BYTES:
            return data
    return report.LastWords(reason=words.reason, message=_cut(words.message, 256)).model_dump_json(by_alias=True).encode()


def say(words: report.LastWords, environ: Mapping[str, str] = os.environ) -> None:
    """Write the last words. A file that cannot be written must not change how the process ends."""
    target = file(environ)
    if target is not None:
        with contextlib.suppress(OSError):
            target.write_bytes(fit(words))


def _cut(sentence: str, length: int) -> str:
    return sentence if len(sentence) <= length else sentence[: length - len(TRUNCATED)] + TRUNCATED
