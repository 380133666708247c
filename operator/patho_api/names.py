"""Every name that two programs must agree on: one home each."""

from typing import Final

GROUP: Final = "pathoscale.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

PRETRAIN: Final = "PathoPretrain"
EVAL: Final = "PathoEval"
PLURALS: Final = {PRETRAIN: "pathopretrains", EVAL: "pathoevals"}
SHORT_NAMES: Final = {PRETRAIN: "ppt", EVAL: "pev"}
JOB_INFIX: Final = {PRETRAIN: "pt", EVAL: "ev"}  # attempt 3 of run r is the Job r-pt-3

MAX_NAME_LENGTH: Final = 40  # pods are named after the run: <run>-pt-<attempt>-<index>-<random>

# Labels on everything a run owns
LABEL_RUN: Final = f"{GROUP}/run"
LABEL_KIND: Final = f"{GROUP}/kind"
LABEL_UID: Final = f"{GROUP}/uid"  # of the resource: a resource made anew under an old name does not take over old pods
LABEL_ATTEMPT: Final = f"{GROUP}/attempt"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "pathoscale"
LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"
# Labels on a PathoEval that a run's spec.evaluations made
LABEL_PRETRAIN: Final = f"{GROUP}/pretrain"
LABEL_EVALUATION: Final = f"{GROUP}/evaluation"
LABEL_STEP: Final = f"{GROUP}/step"
# Annotations on a Job
ANNOTATION_SPEC_HASH: Final = f"{GROUP}/pod-spec-hash"  # of the pod-affecting part of the spec: a new hash is a new attempt
ANNOTATION_IMAGE: Final = f"{GROUP}/resolved-image"
ANNOTATION_FROM_STEP: Final = f"{GROUP}/from-step"
ANNOTATION_BEFORE: Final = f"{GROUP}/before"  # JSON: incidents, disruptions and accelerator seconds of all attempts before this one
ANNOTATION_REASON: Final = f"{GROUP}/reason"  # why the attempt was made
ANNOTATION_MODEL_URL: Final = f"{GROUP}/model-url"  # PathoEval: the checkpoint that was resolved

# Environment of a training process. The pod's specification travels as JSON.
ENV_SPEC: Final = "PATHO_SPEC"
ENV_KIND: Final = "PATHO_KIND"
ENV_RUN: Final = "PATHO_RUN"
ENV_ATTEMPT: Final = "PATHO_ATTEMPT"
ENV_RANK0_HOST: Final = "PATHO_RANK0_HOST"
ENV_SECRET_DIR: Final = "PATHO_STORAGE_SECRET_DIR"
ENV_CHECKPOINT_SECRET_DIR: Final = "PATHO_CHECKPOINT_SECRET_DIR"
ENV_TERMINATION_LOG: Final = "PATHO_TERMINATION_LOG"  # a file; pods: /dev/termination-log
ENV_SCRATCH_DIR: Final = "PATHO_SCRATCH_DIR"  # a writable folder of the pod
ENV_METRICS_PORT: Final = "PATHO_METRICS_PORT"
ENV_BEST_BY: Final = "PATHO_BEST_BY"  # PathoEval: the task whose score decides whether the checkpoint is its run's best

CONTAINER: Final = "trainer"
STORAGE_SECRET_DIR: Final = "/var/run/pathoscale/storage"
CHECKPOINT_SECRET_DIR: Final = "/var/run/pathoscale/checkpoint-storage"
SCRATCH_DIR: Final = "/tmp"
TERMINATION_LOG: Final = "/dev/termination-log"

PORT_RENDEZVOUS: Final = 29500
PORT_METRICS: Final = 9400  # of a training pod: /metrics, /progress, /healthz
PORT_OPERATOR: Final = 8080  # of the operator: /metrics, /healthz, /readyz


def checkpoint_url(root: str, step: int) -> str:
    """Folder of the checkpoint after `step` steps, inside the folder of all checkpoints of a run."""
    return f"{root.rstrip('/')}/step-{step:08d}"


def best_url(root: str) -> str:
    """File that names the best checkpoint of a run (`report.BestCheckpoint`): an evaluation's pod writes it, the trainer never deletes
    what it names. So the operator needs no credentials of the bucket."""
    return f"{root.rstrip('/')}/best.json"


def evaluation_url(root: str, evaluation: str, step: int) -> str:
    """Folder of the results of one of a run's `spec.evaluations`, inside the folder of all its checkpoints."""
    return f"{root.rstrip('/')}/evaluations/{evaluation}/step-{step:08d}"


EXIT_DONE: Final = 0
EXIT_INVALID_CONFIGURATION: Final = 40
EXIT_NO_DATA: Final = 41
EXIT_DIVERGED: Final = 42
EXIT_STOPPED: Final = 143  # SIGTERM, after a save
PERMANENT_EXITS: Final = (EXIT_INVALID_CONFIGURATION, EXIT_NO_DATA, EXIT_DIVERGED)
EXIT_REASONS: Final = {
    EXIT_INVALID_CONFIGURATION: "InvalidConfiguration",
    EXIT_NO_DATA: "DataNotFound",
    EXIT_DIVERGED: "Diverged",
    EXIT_STOPPED: "Stopped",
}

STAGES: Final = ("Indexing", "Loading", "Training", "Saving", "Evaluating")

CONDITIONS: Final = (
    "Admitted",
    "FullySupported",
    "Running",
    "Stalled",
    "Checkpointed",
    "Collapsed",
    "Suspended",
    "Succeeded",
    "Failed",
)
PHASES: Final = ("Pending", "Queued", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed")
REASON_HOST_LOST: Final = "HostLost"  # last words of a pod that ended because pod 0, which hosts the rendezvous, was gone
EVENT_REASONS: Final = (
    "AttemptCreated",
    "AttemptFailed",
    "Restarting",
    "Stalled",
    "Suspended",
    "Resumed",
    "Succeeded",
    "Failed",
    "Refused",
    "NameConflict",
    "EvaluationCreated",
    "EvaluationSkipped",
    "EvaluationFailed",
    "Evaluated",
)

# Metrics of a training pod
TRAIN_STEP: Final = "patho_train_step"
TRAIN_IMAGES: Final = "patho_train_images_total"
TRAIN_STEP_SECONDS: Final = "patho_train_step_seconds"
TRAIN_LOSS: Final = "patho_train_loss"
TRAIN_LEARNING_RATE: Final = "patho_train_learning_rate"
TRAIN_GRADIENT_NORM: Final = "patho_train_gradient_norm"
TRAIN_RANKME: Final = "patho_train_rankme"
TRAIN_ODCORR: Final = "patho_train_odcorr"
TRAIN_MFU: Final = "patho_train_mfu_ratio"
TRAIN_GPU_MEMORY: Final = "patho_train_gpu_memory_bytes"
TRAIN_RESTARTS: Final = "patho_train_restarts"
TRAIN_DATA_WAIT: Final = "patho_train_data_wait_seconds_total"
STREAM_PATCHES: Final = "patho_stream_patches_total"
STREAM_BYTES: Final = "patho_stream_bytes_total"
STREAM_REQUESTS: Final = "patho_stream_requests_total"
STREAM_SECONDS: Final = "patho_stream_seconds_total"
STREAM_BUFFERED: Final = "patho_stream_buffered_patches"
STREAM_REPLACED: Final = "patho_stream_replaced_total"
STREAM_REDRAWN: Final = "patho_stream_redrawn_total"
STREAM_SLIDES: Final = "patho_stream_slides"
STREAM_QUARANTINED: Final = "patho_stream_quarantined_slides"
CHECKPOINT_SECONDS: Final = "patho_checkpoint_seconds"
CHECKPOINT_LAST_SUCCESS: Final = "patho_checkpoint_last_success_timestamp_seconds"
# Metrics of the operator
OPERATOR_RECONCILE_SECONDS: Final = "patho_operator_reconcile_seconds"
OPERATOR_RECONCILES: Final = "patho_operator_reconciles_total"
OPERATOR_QUEUE_DEPTH: Final = "patho_operator_queue_depth"
OPERATOR_API_REQUESTS: Final = "patho_operator_api_requests_total"
OPERATOR_LEADER: Final = "patho_operator_leader"
OPERATOR_BUILD_INFO: Final = "patho_operator_build_info"
JOBS: Final = "patho_jobs"
RUN_PHASE: Final = "patho_run_phase"
RUN_CONDITION: Final = "patho_run_condition"
RUN_PROGRESS: Final = "patho_run_progress_ratio"
RUN_RESTARTS: Final = "patho_run_restarts"
RUN_ACCELERATOR_SECONDS: Final = "patho_run_accelerator_seconds"
EVAL_SCORE: Final = "patho_eval_score"
JOB_RESTARTS: Final = "patho_job_restarts_total"
JOB_TIME_TO_RUNNING: Final = "patho_job_time_to_running_seconds"

STEP_STAGES: Final = ("data_wait", "augment", "forward", "backward", "optimizer")
STREAM_STAGES: Final = ("fetch", "decode", "resize", "wait")
REQUEST_OUTCOMES: Final = ("ok", "retried", "failed")
