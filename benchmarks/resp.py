"""The part of Redis' protocol (RESP2) that a minimal client needs."""


def command(*words: str) -> str:
    """Returns a command in the wire format."""
    return f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)


def reply_ends_at(received: bytes, start: int = 0) -> int | None:
    """Returns where the reply that begins at ``start`` ends, or ``None`` while it is incomplete."""
    line_end = received.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, rest = received[start : start + 1], received[start + 1 : line_end]
    after = line_end + 2
    if kind == b"$":
        length = int(rest)
        end = after if length < 0 else after + length + 2
        return end if end <= len(received) else None
    if kind == b"*":
        for _ in range(max(int(rest), 0)):
            following = reply_ends_at(received, after)
            if following is None:
                return None
            after = following
    return after
