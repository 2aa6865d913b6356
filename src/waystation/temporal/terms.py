"""Keyed digests of words and people: a session is found by them, and whoever reads the index learns no word.

A word is indexed by its beginnings, so that it is found while it is typed. Equal words have equal digests in
all sessions of one key: what can be counted is how often a word occurs, not which it is. The reasons are in
docs/decisions/0022-search-without-clear-text.md. Pure: no Temporal, no I/O.
"""

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

MIN_PREFIX_CHARACTERS: Final = 2
MAX_PREFIX_CHARACTERS: Final = 12
"""A longer word is found by its first twelve characters."""
MAX_TERMS: Final = 160
"""Of one session. Eight characters each, quoted, with a comma: within Temporal's 2,048 bytes."""
ASSIGNED: Final = "assigned"
"""Of sessions that somebody looks after, whoever it is: no digest is this long."""
OTHERS: Final = "others"
"""Instead of people where more may answer than an attribute holds: each who looks is shown the session."""
_DIGEST_BYTES: Final = 5
_PURPOSE: Final = b"waystation search terms 1"
_WORD: Final = re.compile(r"\w+")


def derived_key(encryption_key: bytes) -> str:
    """Returns the key of an installation's digests, as text; that of payloads can't be learned from it."""
    return hmac.new(encryption_key, _PURPOSE, hashlib.sha256).hexdigest()


def words_of(text: str) -> list[str]:
    """Returns the words of a text as they are compared: without case, accents and marks.

    >>> words_of("Zoë’s ORDER #17")
    ['zoe', 's', 'order', '17']
    """
    # Each may bring about what the other is for; after the second round nothing changes any more.
    plain = unicodedata.normalize("NFKD", text)
    for _ in range(2):
        plain = unicodedata.normalize("NFKD", plain.casefold())
    return _WORD.findall("".join(one for one in plain if not unicodedata.combining(one)))


class Terms:
    """Makes the digests of one key."""

    def __init__(self, key: str) -> None:
        self._key = bytes.fromhex(key)

    def person(self, person_id: str) -> str:
        """Returns the digest of a person's id."""
        return self._digest("person", person_id)

    def assignee(self, operator_id: str) -> str:
        """Returns the digest by which the sessions that an operator looks after are found."""
        return self._digest("assignee", operator_id)

    def word(self, word: str) -> str:
        """Returns the digest by which a word of ``words_of``, or its beginning, is found."""
        return self._digest("word", word[:MAX_PREFIX_CHARACTERS])

    def words(self, text: str) -> Iterator[str]:
        """Yields the digests of a text's words and their beginnings."""
        for word in words_of(text):
            longest = min(len(word), MAX_PREFIX_CHARACTERS)
            for length in range(min(MIN_PREFIX_CHARACTERS, longest), longest + 1):
                yield self.word(word[:length])

    def of_session(self, title: str | None, people: Iterable[tuple[str, str | None]]) -> list[str]:
        """Returns the digests of a session, in order: of its title, its people, and their names.

        ``people`` are ids and names, those who wrote last first; with too many, the last ones aren't found.
        """
        known = list(people)
        found = dict.fromkeys(self.person(person_id) for person_id, _ in known[: MAX_TERMS // 2])
        found |= dict.fromkeys(self.words(title or ""))
        for person_id, name in known:
            if len(found) >= MAX_TERMS:
                break
            found |= dict.fromkeys(self.words(f"{name or ''} {person_id}"))
        return list(found)[:MAX_TERMS]

    def _digest(self, kind: str, text: str) -> str:
        digest = hmac.new(self._key, f"{kind}\n{text}".encode(), hashlib.sha256).digest()
        return base64.b32encode(digest[:_DIGEST_BYTES]).decode().lower()


def role_term(role: str) -> str:
    """Returns how ``WAITS_FOR`` names all who answer in a role.

    >>> role_term("approver")
    'role:approver'
    """
    return f"role:{role}"
