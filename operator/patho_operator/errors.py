"""Errors of the operator. The type says what to do: try again, look again, or tell the user."""


class ApiError(Exception):
    """The API server did not do what was asked. Trying again later may help."""

    def __init__(self, status: int, reason: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class NotFound(ApiError):
    """The object does not exist."""


class Conflict(ApiError):
    """The object has changed, or is another one: look again."""


class AlreadyExists(ApiError):
    """An object of this name exists."""


class Denied(ApiError):
    """Quota, admission, permission or validation refused the object: the user must hear about it in these words."""


class Refused(Exception):
    """A child could not be made; `reason` and `message` go into a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class NotYet(Exception):
    """Something is on its way out; look again after `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class LeadershipLost(Exception):
    """The Lease could not be renewed in time: another operator may start now."""


def from_response(status: int, reason: str, message: str, retry_after_seconds: float | None = None) -> ApiError:
    """The error for an HTTP status and the reason of a Kubernetes Status object."""
    kinds = {404: NotFound, 400: Denied, 403: Denied, 422: Denied}
    kind = kinds.get(status, ApiError)
    if "failed calling webhook" in message:  # status 500: nothing was written, and only the cluster's admins can help
        kind = Denied
    if status == 409:
        kind = AlreadyExists if reason == "AlreadyExists" else Conflict
    return kind(status, reason, message, retry_after_seconds)
