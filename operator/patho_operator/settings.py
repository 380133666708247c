"""Settings of the operator: flags, each with an environment variable as its default."""

import argparse
import dataclasses
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from patho_api import names


@dataclasses.dataclass(frozen=True)
class Settings:
    """How this operator runs."""

    namespaces: tuple[str, ...] = ()  # to watch; empty: the whole cluster
    image: str = "pathoscale/trainer:latest"  # of training pods whose compute.image is empty
    own_namespace: str = "default"  # where the Lease lies
    identity: str = "patho-operator"  # of this process, in the Lease
    lease: str = "pathoscale-operator"
    port: int = names.PORT_OPERATOR  # /healthz, /readyz, /metrics
    workers: int = 16  # resources worked on at the same time
    relist_seconds: float = 300.0  # between complete lists that find what watches missed
    progress_seconds: float = 10.0  # between questions to rank 0 of each run; longer for many runs
    publish_seconds: float = 30.0  # between writes of progress to status; longer for many runs
    # NetworkPolicy peers that may read metrics and progress of runs, (): anybody; None: no run gets a NetworkPolicy
    metrics_from: tuple[Mapping[str, Any], ...] | None = None
    log_level: str = "info"


def parse(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line and the environment; exits with a sentence if they are wrong."""
    parser = argparse.ArgumentParser("patho_operator", description=__doc__)
    known = Settings()
    options: tuple[tuple[str, str, Callable[[str], object], object, str], ...] = (
        ("namespaces", "PATHO_WATCH_NAMESPACES", str, "", "namespaces to watch, separated by commas; empty: the whole cluster"),
        ("image", "PATHO_TRAINER_IMAGE", str, known.image, "image of training pods whose spec.compute.image is empty"),
        ("own-namespace", "POD_NAMESPACE", str, known.own_namespace, "namespace of the Lease"),
        ("identity", "POD_NAME", str, socket.gethostname(), "name of this process in the Lease"),
        ("lease", "PATHO_LEASE", str, known.lease, "name of the Lease"),
        ("port", "PATHO_PORT", int, known.port, "port of /healthz, /readyz and /metrics"),
        ("workers", "PATHO_WORKERS", int, known.workers, "resources worked on at the same time"),
        ("relist-seconds", "PATHO_RELIST_SECONDS", float, known.relist_seconds, "between complete lists"),
        ("progress-seconds", "PATHO_PROGRESS_SECONDS", float, known.progress_seconds, "between questions to rank 0 of a run"),
        ("publish-seconds", "PATHO_PUBLISH_SECONDS", float, known.publish_seconds, "between writes of progress to status"),
        (
            "metrics-from",
            "PATHO_METRICS_FROM",
            _peers,
            "",
            "JSON list of peers: each run gets a NetworkPolicy, only they read its metrics",
        ),
        ("log-level", "PATHO_LOG_LEVEL", str, known.log_level, "debug, info, warning or error"),
    )
    for name, variable, kind, default, text in options:
        parser.add_argument(f"--{name}", type=kind, default=environ.get(variable, default), help=f"{text} (${variable})")
    values = vars(parser.parse_args(arguments))
    values["namespaces"] = tuple(n.strip() for n in values["namespaces"].split(",") if n.strip())
    return Settings(**values)


def _peers(text: str) -> tuple[Mapping[str, Any], ...] | None:
    """A JSON list of objects, None for an empty text. Raises argparse.ArgumentTypeError."""
    try:
        found = json.loads(text or "null")
    except ValueError:
        found = text
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(peer, dict) and peer for peer in found):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON list of peers, such as [{{"podSelector": {{}}}}]')
    return tuple(found)
