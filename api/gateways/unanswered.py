"""What a request without a proper answer from Temporal or a worker may have done: one place says so."""

from enum import Enum

from api.errors import Unavailable


class CarriedOut(Enum):
    """What is known of a request without an answer; the value is what callers are told to do."""

    NOTHING_TO = "Try again."
    """It only looks."""
    NO = "Nothing was carried out; try again."
    """Temporal has refused it, or it was never sent."""
    UNKNOWN = "It may have been carried out all the same: send it again under the same id, or look first."
    """It was sent, and may have been taken, now or later."""

    @property
    def told(self) -> str:
        """The word for it in the answer."""
        return "unknown" if self is CarriedOut.UNKNOWN else "no"


def unanswered(why: str, known: CarriedOut, *, code: str | None = None) -> Unavailable:
    """Returns the 503 for it. ``why`` is a sentence."""
    return Unavailable(f"{why} {known.value}", code=code, carried_out=known.told)
