"""Parts that both kinds use, and the base class of every specification.

A rule that a schema cannot say is a `Rule`: one CEL expression for the API server and its Python twin, with one message.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import Field, JsonValue
from pydantic.alias_generators import to_camel


@dataclasses.dataclass(frozen=True)
class Rule:
    """A cross-field rule. `cel` sees `self` (and `oldSelf` in a transition rule); `check` sees the model (or the old and the new one)."""

    cel: str
    message: str
    check: Callable[..., bool]
    transition: bool = False


class Spec(pydantic.BaseModel):
    """Base of all specifications: camelCase in YAML, snake_case in Python, unknown fields refused, rules enforced."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @pydantic.model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            if not rule.transition and not rule.check(self):
                raise ValueError(rule.message)
        return self

    def dump(self) -> dict[str, Any]:
        """The specification as JSON-ready camelCase, defaults written out."""
        return self.model_dump(mode="json", by_alias=True)


CLIMBS = r"^([^f]|f[^i])[^:]*://.*/(\.|%2[eE]){2}(/|$)"  # RE2, which CEL and Python read alike; file:// and plain paths may say ../
CLIMBING = "'..' leads nowhere in a bucket: write the path from its root"
NO_CLIMBING: dict[str, JsonValue] = {"x-kubernetes-validations": [{"rule": f"!self.matches(r'{CLIMBS}')", "message": CLIMBING}]}


def _does_not_climb(url: str) -> str:
    """The Python twin of NO_CLIMBING. Raises ValueError."""
    if re.search(CLIMBS, url):
        raise ValueError(CLIMBING)
    return url


Url = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=NO_CLIMBING), pydantic.AfterValidator(_does_not_climb)]
UrlOrEmpty = Annotated[str, Field(max_length=1024, json_schema_extra=NO_CLIMBING), pydantic.AfterValidator(_does_not_climb)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
PositiveFloat = Annotated[float, Field(gt=0)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
# a string that may be written as a whole number in YAML; the API server knows that pair of types
INT_OR_STRING: dict[str, JsonValue] = {"x-kubernetes-int-or-string": True}
Quantity = Annotated[
    str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$", json_schema_extra=INT_OR_STRING)
]
ShortText = Annotated[str, Field(max_length=253)]
# free-form Kubernetes objects that the API server keeps as they are
Opaque = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class Storage(Spec):
    """How to reach a bucket. With nothing set, the pod's own identity is used (workload identity, instance role)."""

    secret_name: Annotated[str, Field(max_length=253)] = ""
    """Secret in the same namespace, mounted as files. Keys: `key.json` (a Google service account), or `access_key_id`,
    `secret_access_key`, `session_token` (S3), or `account_name`, `account_key`, `sas_token` (Azure). Empty: the pod's own identity."""
    endpoint: Annotated[str, Field(max_length=1024)] = ""
    """URL of an S3- or GCS-compatible server, such as `https://minio.example:9000`. Empty: the provider's own."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Region of the bucket, where the provider wants one. Empty: the provider's default."""
    anonymous: bool = False
    """Send unsigned requests, for public buckets."""
    options: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=32)] = {}
    """Further options for the store, by obstore's names (never credentials: those belong in the secret)."""


class Resources(Spec):
    """Resources of one pod. Requests equal limits unless both are given, so that a pod is never throttled by a neighbour."""

    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """Limits of one pod, such as `{nvidia.com/gpu: 8, cpu: "48", memory: 400Gi}`."""
    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """Requests of one pod. Empty: equal to the limits."""

    @pydantic.field_validator("limits", "requests", mode="before")
    @classmethod
    def _numbers_are_quantities(cls, value: Any) -> Any:
        """YAML reads `nvidia.com/gpu: 8` as a number; Kubernetes takes both. A fraction must be quoted, or written as `500m`."""
        if not isinstance(value, dict):
            return value
        return {k: str(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in value.items()}


class Compute(Spec):
    """Where the run's pods go and what they get."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.minNodes) || self.minNodes <= self.nodes",
            "minNodes must not exceed nodes: set minNodes to at most the number of nodes",
            lambda c: c.min_nodes is None or c.min_nodes <= c.nodes,
        ),
    )

    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of pods; each gets a whole share of `resources`."""
    min_nodes: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Fewest pods that may go on training when others are lost (elastic run). Null: all of `nodes`."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes in a pod: one for each GPU; then give `resources` as many GPUs."""
    resources: Resources = Resources()
    """Resources of one pod."""
    image: Annotated[str, Field(max_length=512)] = ""
    """Container image of the trainer. Empty: the one of the operator's own release, resolved once for each attempt."""
    queue_name: Annotated[str, Field(max_length=63)] = ""
    """Kueue LocalQueue that admits the run. Empty: no queue."""
    scheduler_name: Annotated[str, Field(max_length=253)] = ""
    """A scheduler that places whole gangs, where the cluster has one. Empty: the cluster's default scheduler."""
    service_account_name: Annotated[str, Field(max_length=253)] = ""
    """Service account of the pods, for workload identity; its token is mounted only when this is set. Empty: the namespace's default."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[Opaque], Field(max_length=32)] = []
    """Taints that the pods tolerate, as in a pod."""
    priority_class_name: Annotated[str, Field(max_length=253)] = ""
    """PriorityClass of the pods. Empty: the cluster's default."""
    pod_template: Opaque = {}
    """Overlay on the pod template for everything else (`metadata`, `spec`); lists of named things merge by name, the container is
    called `trainer`. What the operator owns (command, arguments, restart policy, its own environment) cannot be overridden."""


class RunPolicy(Spec):
    """What the operator does when something goes wrong, or when it is over."""

    suspend: bool = False
    """Stop the pods after a checkpoint and keep the run; false again resumes it from there, as a new attempt that is not counted."""
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 10
    """Incidents (crashes, out of memory) after which the run has failed. Disruptions (drain, preemption) are not counted. Default: 10,
    enough for weeks of ordinary hardware faults, and few enough to stop a run that always crashes."""
    stall_timeout_seconds: Annotated[int, Field(ge=10, le=86400)] = 900
    """Without a new step for this many seconds the whole gang restarts. Default: 900, which covers a slow save of a large model."""
    reform_timeout_seconds: Annotated[int, Field(ge=10, le=86400)] = 300
    """A lost pod has this many seconds to come back before the whole gang restarts. Default: 300, which covers a new node's image pull."""
    placement_timeout_seconds: Annotated[int, Field(ge=10, le=604800)] = 900
    """A gang that is only partly placed gives its nodes back after this many seconds, and tries again. Default: 900, which covers a
    node pool that scales up."""
    grace_period_seconds: Annotated[int, Field(ge=5, le=3600)] = 120
    """Seconds for the last checkpoint between SIGTERM and SIGKILL. Default: 120; raise it for models of a billion parameters."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """The run fails when it has not ended this many seconds after its start. Null: no deadline."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """The resource and what it owns are deleted this many seconds after the end; checkpoints and results stay. Null: kept."""


class Normalization(Spec):
    """Channel statistics, in units of full scale (0 to 1), order R, G, B."""

    mean: Annotated[list[UnitInterval], Field(min_length=3, max_length=3)] = [0.5, 0.5, 0.5]
    """Subtracted mean. Default: 0.5, as in the released models of arXiv 2404.15217."""
    std: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)] = [0.5, 0.5, 0.5]
    """Divisor. Default: 0.5, as above."""


Precision = Literal["BFloat16", "Float32"]
