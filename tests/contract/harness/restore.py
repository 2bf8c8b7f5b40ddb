"""Completes the texts that the recorder cut: `beginning… (N bytes)`.

It cut only texts that repeat themselves, so that beginning and length say everything.
"""

import json
import re

CUT = re.compile(r"^(.*)… \((\d+) bytes\)$", re.DOTALL)


def text(recorded):
    """The whole text. Fails loudly if it cannot be known."""
    found = CUT.match(recorded)
    if not found:
        return recorded
    beginning, size = found[1], int(found[2])
    for candidate in _candidates(beginning, size):
        if len(candidate.encode()) == size and candidate.startswith(beginning) and _is_json(candidate):
            return candidate
    raise ValueError(f"cannot complete {recorded[:80]!r} to {size} bytes")


def _is_json(candidate):
    try:
        json.loads(candidate)
    except RecursionError:
        return True  # Deeper than Python reads, on purpose.
    except ValueError:
        return False
    return True


def _candidates(beginning, size):
    # One character over and over: xxxxx or ddddd, then what closes the JSON.
    for tail in ('"}}', '"}'):
        stem = beginning.rstrip(beginning[-1])
        yield stem + beginning[-1] * (size - len(stem) - len(tail)) + tail
    # Brackets as deep as the length allows.
    stem = beginning.rstrip("[")
    depth = (size - len(stem) - 1) // 2
    yield stem + "[" * depth + "]" * depth + "}"
    # Channels c0, c1, ... and the default event.
    for count in range(90, 120):
        names = ",".join(f'"c{i}"' for i in range(count))
        yield f'{{"name":"ev","channels":[{names}],"data":"{{\\"x\\":1}}"}}'
    # The same event several times in a batch.
    item = '{"channel":"lobby","name":"ev","data":"{\\"x\\":1}"}'
    for count in range(1, 20):
        yield '{"batch":[' + ",".join([item] * count) + "]}"
