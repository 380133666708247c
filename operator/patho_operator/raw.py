"""Parts of API objects, read as they may be: half filled, or spoilt by somebody. Pure."""

import datetime
from collections.abc import Mapping
from typing import Any

from patho_api import names
from patho_operator import times

Json = Mapping[str, Any]
Time = datetime.datetime


def condition(body: Json, kind: str) -> Json | None:
    """A condition that is True."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind and c.get("status") == "True"), None)


def trainer_state(status: Json) -> Json:
    """State of the trainer's container; empty while it has none."""
    containers = status.get("containerStatuses") or []
    found: Json = next((c.get("state") or {} for c in containers if c.get("name") == names.CONTAINER), {})
    return found


def trouble(body: Json, state: Json) -> tuple[str, str]:
    """Why a pod does not run: (reason, message), both empty if nothing is known to be wrong."""
    waiting = state.get("waiting") or {}
    if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return waiting["reason"], waiting.get("message", waiting["reason"])
    conditions = (body.get("status") or {}).get("conditions") or []
    for condition in conditions:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return condition.get("reason", "Unschedulable"), condition.get("message", "")
    return "", ""


def not_ready_since(body: Json) -> Time | None:
    """When a pod without container states (an evicted one, one on a lost node) ended."""
    status = body.get("status") or {}
    if status.get("phase") not in ("Failed", "Succeeded"):
        return None
    changes = (c.get("lastTransitionTime") for c in status.get("conditions") or [] if c.get("type") in ("Ready", "DisruptionTarget"))
    return max((t for t in map(times.parse, changes) if t), default=None)


def ended_without_words(ended: Json, status: Json) -> str:
    """What is known of an end about which the trainer said nothing."""
    if ended.get("reason") == "OOMKilled":
        return "out of memory (OOMKilled): raise compute.resources.limits.memory, or lower training.microBatchSize"
    return str(status.get("message") or "")


def number(text: str | None) -> int:
    """A count out of a label or annotation; 0 where it is none."""
    return int(text) if text and text.isdecimal() and len(text) < 20 else 0
