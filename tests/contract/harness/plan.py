"""A recorded WebSocket case as actions and expectations, in the order of the replay."""

import json

from . import cues, frames, normal, restore

REMOVED = "member_removed"
SIGNALS = {"TERM", "INT", "KILL"}


def socket_ids(steps):
    """The sockets of a recorded case and the ids that Reverb gave them."""
    found = {}
    for step in steps:
        if step.get("at") == "<" and "pusher:connection_established" in step["frame"]:
            data = json.loads(json.loads(step["frame"])["data"])
            found.setdefault(step["who"], data["socket_id"])
    return found


def build(name, case, steps):
    """The plan: dictionaries with `do` for an action, or with `who` and `line` for what
    has to arrive after it."""
    ids = socket_ids(steps)
    plan = []
    closing = set()
    waiting = list(cues.CUES.get(name, {}).get(case, []))
    for step in steps:
        if waiting and waiting[0][0] is not cues.END and _is_place(step, waiting[0][0]):
            plan.append(waiting.pop(0)[1])
        if step.get("at") == "> close":
            closing.add(step["who"])
        if _client_closed(step, closing):
            plan.insert(_before_consequences(plan), {"do": "close", "who": step["who"], "code": 1000})
        plan += _items(name, case, step, ids)
    plan += [cue for place, cue in waiting if place is cues.END]
    if any(place is not cues.END for place, _ in waiting):
        raise ValueError(f"{name}:{case}: a cue has no place")
    return plan


def _is_place(step, text):
    if step.get("at") == "close":
        return text == "close"
    return step.get("at") == "<" and text in step["frame"].replace('\\"', '"')


def _client_closed(step, closing):
    """Whether a close was the client's own, though the recorder wrote only its end."""
    return (
        step.get("at") == "close"
        and step["code"] == 1000
        and step["who"] not in closing
    )


def _before_consequences(plan):
    """A leaving member's `member_removed` may have been written before its own close."""
    at = len(plan)
    while at and REMOVED in plan[at - 1].get("line", ""):
        at -= 1
    return at


def _items(name, case, step, ids):
    at, who = step.get("at"), step.get("who")
    if at == "connect":
        headers = dict(step.get("headers") or {}) | cues.HANDSHAKE.get(case, {})
        return [{"do": "connect", "who": who, "path": step["path"], "headers": headers}]
    if at == "upgrade":
        return [{"who": who, "line": line} for line in upgrade(name, step["status"], step["headers"])]
    if at == "refused":
        lines = refused(name, step["status"], step["headers"], step["body"])
        return [{"who": who, "line": line} for line in lines]
    if at == ">":
        return [_send(case, who, restore.text(step["frame"]))]
    if at == "> ping":
        return [{"do": "send", "who": who, "opcode": frames.PING, "payload": step["data"].encode()}]
    if at == "> close":
        reason = "bye" if step["code"] == 1000 else ""
        return [{"do": "close", "who": who, "code": step["code"], "reason": reason}]
    if at == "<":
        return [{"who": who, "line": "< " + normal.recorded(step["frame"], ids)}]
    if at in ("< ping", "< pong"):
        return [{"who": who, "line": f"{at} '{step['data']}'"}]
    if at == "close":
        return [{"who": who, "line": close(step["code"], step["reason"])}]
    if at == "error":
        return [{"who": who, "line": f"error {step['message']}"}]
    if at == "HTTP POST /events":
        return [{"do": "post", "body": step["body"]}]
    if at == "HTTP answer":
        return [{"who": "HTTP", "line": line} for line in answer(step["status"], step["body"])]
    if step.get("note") in SIGNALS:
        return [{"do": "signal", "name": step["note"]}]
    if "B got 100" in step.get("note", ""):
        line = "< " + normal.frame('{"event":"client-e","channel":"private-x","data":{"a":1}}')
        return [{"who": "B", "line": line}] * 100
    return []


def _send(case, who, text):
    opcode = frames.BINARY if case in cues.BINARY else frames.TEXT
    return {"do": "send", "who": who, "opcode": opcode, "payload": text.encode()}


def upgrade(name, code, header_lines, key=None):
    """A handshake's answer. Its headers are compared in one file only, about connecting."""
    if name != "ws-connect":
        return [f"status {code}"]
    lines = normal.headers(header_lines, key)
    if key is None:
        lines = [
            "header sec-websocket-accept: right" if "sec-websocket-accept" in line else line
            for line in lines
        ]
    return [f"status {code}", *lines]


def refused(name, code, header_lines, body):
    return [*upgrade(name, code, header_lines), f"body {normal.json_text(body)}"]


def answer(status, body):
    code = int(status.split()[1]) if isinstance(status, str) else status
    return [f"status {code}", f"body {normal.json_text(body)}"]


def close(code, reason):
    return f"close {code} {reason}".rstrip()
