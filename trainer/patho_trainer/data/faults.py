"""What went wrong with a bucket: the exceptions, and the translation of a transport's error into one sentence. Pure."""

import re

import obstore

from patho_trainer import errors
from patho_trainer.data import urls


class NotFound(errors.DataNotFound):
    """An object does not exist, or is shorter than asked for: it will not come back."""


class AccessDenied(errors.InvalidConfiguration):
    """The credentials are missing, wrong, or may not do this."""


class AlreadyExists(errors.PathoError):
    """A conditional write lost: somebody else has written this object."""


class Transient(errors.PathoError):
    """The same request may succeed later: time-out, reset, throttling, server error, short body."""


STATUS = re.compile(r"status code: (\d{3})")
NO_BUCKET = ("NoSuchBucket", "bucket does not exist", "ContainerNotFound")
NO_CREDENTIALS = ("169.254.169.254", "metadata.google.internal", "token request", "service account", "private key")
BAD_CREDENTIALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "Unauthenticated")
BAD_PATH = ("Permission denied", "Read-only file system", "Unable to create dir", "Not a directory")


def explain(error: Exception, url: str, *, proven: bool = False) -> errors.PathoError:
    """The error that a user sees. `proven`: this bucket has answered before, so that trouble with a token is a hiccup."""
    text = str(error)
    found = STATUS.search(text)
    status = int(found[1]) if found else 0
    if isinstance(error, FileExistsError | obstore.exceptions.AlreadyExistsError | obstore.exceptions.PreconditionError):
        return AlreadyExists(f"{url} exists already")
    if any(sign in text for sign in NO_BUCKET):
        root = urls.parse(url).base
        return errors.InvalidConfiguration(f"bucket {root} does not exist (asked for {url}): correct the url, or storage.endpoint")
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NotFound(f"{url} does not exist: check the bucket and the path")
    if status == 416 or "range was invalid" in text:
        return NotFound(f"{url} is shorter than expected: the object has changed; build the index anew")
    return _denied(error, text, status, url, proven) or _unusable(text, status, url, proven)


def _denied(error: Exception, text: str, status: int, url: str, proven: bool) -> errors.PathoError | None:
    refused = isinstance(error, PermissionError | obstore.exceptions.PermissionDeniedError | obstore.exceptions.UnauthenticatedError)
    if any(sign in text for sign in BAD_PATH):
        return AccessDenied(f"{url} cannot be read or written ({_first_line(text)}): check the path and its permissions")
    if any(sign in text for sign in NO_CREDENTIALS) and not refused:
        if proven:
            return Transient(f"{url}: the access token could not be renewed: {_first_line(text)}")
        return AccessDenied(
            f"no credentials for {url}: set storage.secretName, or a service account with access (compute.serviceAccountName), "
            "or storage.anonymous: true for a public bucket; outside of a cluster your provider's variables serve "
            "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY)"
        )
    if refused or status in (401, 403) or any(sign in text for sign in BAD_CREDENTIALS):
        return AccessDenied(
            f"access to {url} was denied{f' ({status})' if status else ''}: check the keys of storage.secretName and what they may do"
        )
    return None


def _unusable(text: str, status: int, url: str, proven: bool) -> errors.PathoError:
    if status in (301, 307, 400) and not proven and "RequestTimeout" not in text:  # S3 says 400 to an upload that stalled
        return errors.InvalidConfiguration(f"{url}: the server refused the request ({status}): check storage.region and storage.endpoint")
    if "HTTP error" in text and not status:
        return Transient(f"{url}: the server cannot be reached: check storage.endpoint and the network ({_first_line(text)})")
    return Transient(f"{url}: {_first_line(text)}")


def _first_line(text: str) -> str:
    return text.splitlines()[0][:300] if text else "no details"
