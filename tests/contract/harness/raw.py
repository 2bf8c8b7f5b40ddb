"""Plays the cases that were recorded as bytes: handshakes and frames that no library sends."""

import json
import re

from . import cues, frames, normal, peer, plan
from .server import Server


def pieces_of(case, steps):
    """The bytes that a raw case sends, or None for a case of another kind."""
    if case in cues.SAME_SEGMENT:
        return cues.SAME_SEGMENT[case]
    for step in steps:
        if step.get("at") == "> raw":
            return [step["data"].encode("latin1")]
        if step.get("at") == "> raw frames (hex)":
            data = step["data"]
            if isinstance(data, str):
                data = json.loads(data)
            sent = cues.RAW_FRAMES.get(case) or [bytes.fromhex(piece) for piece in data]
            return [cues.UPGRADE, 0.05, *sent]
    return None


def _has_head(steps):
    """Whether the recorded bytes begin with the answer to the handshake."""
    return any(step["at"] == "< raw" for step in steps)


def expected(steps):
    answer = next(step for step in steps if step["at"].startswith("< "))
    data = answer["data"].encode("latin1")
    head = []
    if _has_head(steps):
        head, data = _head(data)
    closed = answer["connection"] == "server closed"
    return {"raw": head + _rest(data, closed, normal.recorded)}


def run(pieces, settings, steps):
    with Server(settings) as server:
        data, closed = peer.exchange(server.port, pieces, linger_s=0.2)
    head, data = _head(data)
    return {"raw": (head if _has_head(steps) else []) + _rest(data, closed, normal.frame)}


def _head(data):
    """The lines of a response's head, and the bytes after it."""
    code, header_lines, rest = normal.split_response(data) or (0, [], data)
    return plan.upgrade("ws-connect", code, header_lines, peer.HANDSHAKE_KEY), rest


def _rest(data, closed, told):
    """Frames or a body as lines, and who closed."""
    lines = []
    if data[:1] in (b"\x81", b"\x88", b"\x89", b"\x8a"):
        while (found := frames.decode(data)) is not None:
            opcode, payload, data = found
            lines.append(_frame(opcode, payload, told))
    if data:
        lines.append(f"body {normal.json_text(data.decode('utf-8', 'replace'))}")
    lines.append("connection closed by the server" if closed else "connection left open")
    return lines


def _frame(opcode, payload, told):
    if opcode == frames.CLOSE:
        return plan.close(*frames.close_payload(payload))
    text = payload.decode("utf-8", "replace")
    if opcode in (frames.PING, frames.PONG):
        return f"< {'ping' if opcode == frames.PING else 'pong'} '{text}'"
    ids = dict(re.findall(r'(socket)_id\\":\\"(\d+\.\d+)', text))
    return "< " + told(text, ids)
