"""What a pod is asked to do: command-line arguments and the environment of `patho_api.launch`."""

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence

import pydantic

from patho_api import common, evaluate, names, pretrain, resource
from patho_trainer import errors
from patho_trainer.data import storage

COMMANDS = {"pretrain": names.PRETRAIN, "evaluate": names.EVAL}


@dataclasses.dataclass(frozen=True)
class Task:
    """One pod's part in an attempt. `rank0` is `host` or `host:port` of pod 0, empty where it was not given."""

    kind: str
    spec: pretrain.PretrainSpec | evaluate.EvalSpec
    attempt: int
    run_id: str
    node_rank: int
    rank0: str


def read(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Task:
    """The task of this pod. Raises InvalidConfiguration with one sentence a line for a specification that is wrong."""
    parser = argparse.ArgumentParser(prog="patho_trainer", description="A pod of a run; started by the operator or by `patho run`.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--run-id", required=True, help="unique for each attempt")
    parser.add_argument("--node-rank", required=True, type=int, help="index of this pod")
    parser.add_argument("--rank0-env", default="", help="name of the variable that holds the host of pod 0")
    options = parser.parse_args(arguments)
    kind = COMMANDS[options.command]
    return Task(
        kind=kind,
        spec=_spec(kind, environ),
        attempt=int(environ.get(names.ENV_ATTEMPT, "1")),
        run_id=options.run_id,
        node_rank=options.node_rank,
        rank0=environ.get(options.rank0_env, ""),
    )


def _spec(kind: str, environ: Mapping[str, str]) -> pretrain.PretrainSpec | evaluate.EvalSpec:
    try:
        return resource.SPECS[kind].model_validate_json(environ[names.ENV_SPEC])
    except KeyError as error:
        raise errors.InvalidConfiguration(f"{names.ENV_SPEC} is not set: apply a manifest, or use `patho run FILE`") from error
    except pydantic.ValidationError as error:
        raise errors.InvalidConfiguration("\n".join(resource.sentences(error))) from error


def slides_bucket(storage_spec: common.Storage, environ: Mapping[str, str] = os.environ) -> storage.Bucket:
    """The bucket of slides (or of an evaluation's data), with the secret that is mounted for it."""
    return storage.Bucket(storage_spec, environ.get(names.ENV_SECRET_DIR))


def checkpoints_bucket(spec: pretrain.PretrainSpec, environ: Mapping[str, str] = os.environ) -> storage.Bucket:
    """The bucket of checkpoints: as for the slides, where nothing else is said."""
    if spec.checkpoints.storage is None:
        return slides_bucket(spec.slides.storage, environ)
    return storage.Bucket(spec.checkpoints.storage, environ.get(names.ENV_CHECKPOINT_SECRET_DIR))
