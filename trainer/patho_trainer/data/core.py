"""The native core (`native/`, module `patho_native`), where it is installed. Who uses which part of it: `native`,
`places`, `record`, `fetching`."""

import importlib
import logging
from typing import Any

log = logging.getLogger(__name__)

VERSION = 5  # of what Python and the core agree on: raised with every change of it, here and in `native/src/lib.rs`


def load() -> Any:
    """The module, None where it is not installed or of another version. One that cannot be loaded is an error (ImportError)."""
    try:
        module = importlib.import_module("patho_native")
    except ModuleNotFoundError:
        return None
    found = getattr(module, "VERSION", 1)
    if found != VERSION:
        log.error(
            "the native core at %s has version %s, not %s: it is not used, build it anew (make native)", module.__file__, found, VERSION
        )
        return None
    return module


native = load()  # once: whoever uses it has a name of its own for it, by which that use is switched off
