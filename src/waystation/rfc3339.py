"""RFC 3339 date-times: the one way in which a time in somebody else's text is read."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DATE_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
"""``date-time`` of RFC 3339, section 5.6, whose note allows lower case, and a blank instead of ``T``."""


def parse_rfc3339(text: str) -> datetime:
    """Returns the moment in UTC.

    A fraction is cut to microseconds. A leap second counts as the second after it.

    >>> parse_rfc3339("2026-04-17t12:00:00.123456789+02:00").isoformat()
    '2026-04-17T10:00:00.123456+00:00'
    >>> parse_rfc3339("2026-04-17T12:00:00")
    Traceback (most recent call last):
    ...
    ValueError: must be an RFC 3339 date-time with its offset from UTC, such as 2026-04-17T12:00:00Z

    Raises:
        ValueError: It is not RFC 3339, has no offset from UTC, or names a moment that doesn't exist.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(
            "must be an RFC 3339 date-time with its offset from UTC, such as 2026-04-17T12:00:00Z"
        )
    year, month, day, hour, minute, second = (int(match[number]) for number in range(1, 7))
    leap = second == 60
    try:
        local = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
        moment = local - _offset(match[8], match[9], match[10])
        rest = (
            timedelta(seconds=1) if leap else timedelta(microseconds=int((match[7] or "0")[:6].ljust(6, "0")))
        )
        if not leap or (moment.hour, moment.minute) == (23, 59):
            return moment + rest
    except (ValueError, OverflowError):
        pass
    raise ValueError("names a moment that doesn't exist")


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> timedelta:
    if sign is None or hours is None or minutes is None:
        return timedelta(0)
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError("no such offset")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return offset if sign == "+" else -offset
