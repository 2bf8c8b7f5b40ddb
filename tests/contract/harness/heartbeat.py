"""Plays ws-ping.json: seven sockets at once on one server, with a ping after two seconds
instead of sixty: short enough to wait for, long enough for a busy machine.

Only the order of what arrives is compared, and repeats count once: how often a ping comes
is a setting.
"""

import json
import time

from . import frames, normal, peer, plan, recordings, signing
from .server import Server

LENGTH_S = 6
# What each socket does, by the first letter of its case.
ANSWERS_PINGS = {"B", "C", "G"}
SENDS_CONTROL_PING = {"C", "E"}
ANSWERS_PUSHER_PING = {"B"}
PING_EVERY_S = {"G": 20 / recordings.PING_SCALE}
PONG = b'{"event":"pusher:pong","data":{}}'
PING = b'{"event":"pusher:ping","data":{}}'


def once(lines):
    """Without what was said before: it is a repeat of the heartbeat."""
    return list(dict.fromkeys(lines))


def expected(case, steps):
    ids = plan.socket_ids(steps)
    lines = []
    for step in steps:
        at = step.get("at")
        if at == "<":
            lines.append("< " + normal.recorded(step["frame"], {case[0]: ids[case]}))
        elif at in ("< ping", "< pong"):
            lines.append(f"{at} '{step['data']}'")
        elif at == "close":
            lines.append(plan.close(step["code"], step["reason"]))
    return {case[0]: once(lines)}


class Socket:
    """One of the seven, and what it saw."""

    def __init__(self, port, case, steps):
        self.letter = case[0]
        self.lines = []
        self.id = None
        self.peer = peer.Peer(port)
        self.peer.answers_pings = self.letter in ANSWERS_PINGS
        self.peer.handshake(f"/app/{signing.KEY}?protocol=7")
        self.next_ping = time.monotonic() + PING_EVERY_S.get(self.letter, LENGTH_S * 2)
        self.wait_for(1)
        recorded = plan.socket_ids(steps)
        for step in steps:
            if step.get("at") == ">" and "subscribe" in step["frame"]:
                message = json.loads(step["frame"])
                auth = signing.resubscribe(message["data"], recorded, {case: self.id})
                if auth is not None:
                    message["data"]["auth"] = auth
                self.peer.send(frames.TEXT, json.dumps(message).encode())
                self.wait_for(2)
        if self.letter in SENDS_CONTROL_PING:
            self.peer.send(frames.PING, b"")

    def wait_for(self, count):
        deadline = time.monotonic() + 1
        while len(self.lines) < count and time.monotonic() < deadline:
            self.step()

    def step(self):
        self.peer.pump(0.005)
        for event in self.peer.events:
            self._take(event)
        self.peer.events.clear()
        if time.monotonic() >= self.next_ping:
            self.next_ping += PING_EVERY_S[self.letter]
            self.peer.send(frames.TEXT, PING)

    def _take(self, event):
        if event[0] == "close":
            self.lines.append(plan.close(*event[1:]))
        elif event[0] != "text":
            self.lines.append(f"< {event[0]} '{event[1]}'")
        else:
            message = json.loads(event[1])
            if message["event"] == "pusher:connection_established":
                self.id = json.loads(message["data"])["socket_id"]
            if message["event"] == "pusher:ping" and self.letter in ANSWERS_PUSHER_PING:
                self.peer.send(frames.TEXT, PONG)
            self.lines.append("< " + normal.frame(event[1], {self.letter: self.id}))


def replay(recording):
    """Every case with both sides."""
    cases = recording["cases"]
    with Server(recordings.settings("ws-ping", recording)) as server:
        sockets = {case: Socket(server.port, case, steps) for case, steps in cases.items()}
        deadline = time.monotonic() + LENGTH_S
        while time.monotonic() < deadline:
            for one in sockets.values():
                one.step()
    for case, steps in cases.items():
        yield case, expected(case, steps), {case[0]: once(sockets[case].lines)}
