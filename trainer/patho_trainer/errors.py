"""Errors that a user sees: one sentence with the field, the value and the way out. The type says how the process ends."""

from patho_api import names


class PathoError(Exception):
    """An error that a user can act on. `exit_code` is what the process ends with; see `patho_api.names`."""

    exit_code: int = 1
    reason: str = "Crashed"


class InvalidConfiguration(PathoError):
    """The specification, a credential or an address is wrong: the same run would fail again."""

    exit_code = names.EXIT_INVALID_CONFIGURATION
    reason = names.EXIT_REASONS[exit_code]


class DataNotFound(PathoError):
    """Data that will never be there: no slide, too many unreadable slides, a missing file of a data set."""

    exit_code = names.EXIT_NO_DATA
    reason = names.EXIT_REASONS[exit_code]


class Diverged(PathoError):
    """The loss is not finite; the same seed would diverge again."""

    exit_code = names.EXIT_DIVERGED
    reason = names.EXIT_REASONS[exit_code]


class Stopped(PathoError):
    """SIGTERM arrived and the last checkpoint is complete."""

    exit_code = names.EXIT_STOPPED
    reason = names.EXIT_REASONS[exit_code]


class HostLost(PathoError):
    """Pod 0, which hosts the rendezvous, is gone: this pod ends because of it, and the next one meets the next pod 0."""

    reason = names.REASON_HOST_LOST
