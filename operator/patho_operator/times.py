"""RFC 3339 times, UTC, whole seconds: the form in which Kubernetes writes them."""

import datetime

UTC = datetime.UTC


def parse(text: str | None) -> datetime.datetime | None:
    """A time from its text; None for None, an empty text, or something that is no time."""
    if not text:
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def write(time: datetime.datetime) -> str:
    """The text of a time."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_between(start: datetime.datetime, end: datetime.datetime) -> float:
    """Seconds from start to end, never negative: clocks of two machines differ."""
    return max(0.0, (end - start).total_seconds())


def short(seconds: float) -> str:
    """A duration for people: `45s`, `12m`, `3h10m`, `2d4h`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m" if minutes else f"{whole}s"
