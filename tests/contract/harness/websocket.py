"""Plays a recorded WebSocket case and writes down what arrives, socket by socket.

Only the order within one socket is compared: between sockets it is up to the network.
"""

import json
import re
import select
import signal
import time
from collections import Counter

from . import frames, normal, peer, plan, raw, signing
from .server import Server

# How long to wait for a frame that was recorded but does not come, after the server has
# proved that it handled everything before.
MISSING_S = 0.2
STUCK_S = 2
LAST_S = 0.05


class Replay:
    """One case on a server of its own."""

    def __init__(self, name, case, steps, settings):
        self.name = name
        self.recorded_ids = plan.socket_ids(steps)
        self.plan = plan.build(name, case, steps)
        self.records_http = any(item.get("who") == "HTTP" for item in self.plan)
        self.settings = settings
        self.peers = {}
        self.live_ids = {}
        self.lines = {}
        self.wanted = Counter()
        self.received = Counter()
        self.port = None

    def expected(self):
        """What the recording says, as lines for each socket."""
        lines = {}
        for item in self.plan:
            if "line" in item:
                lines.setdefault(item["who"], []).append(item["line"])
            elif item["do"] == "send":
                lines.setdefault(item["who"], []).append(self._sent(item))
        return lines

    def _sent(self, item):
        """A sent frame as a line that both sides have in common."""
        text = item["payload"].decode("utf-8", "replace")
        return "> " + normal.shorten(re.sub(r'"auth":"[^"]*"', '"auth":…', text))

    def run(self):
        with Server(self.settings) as server:
            self.port = server.port
            self.server = server
            for action, answers in self._rounds():
                if action is not None:
                    getattr(self, "_do_" + action["do"])(action)
                for item in answers:
                    self._want(item)
                self._settle()
                self._collect()
            time.sleep(LAST_S)
            self._settle()
            self._collect()
        return self.lines

    def _rounds(self):
        """Each action with what has to arrive after it."""
        rounds = [(None, [])]
        for item in self.plan:
            if "line" in item:
                rounds[-1][1].append(item)
            else:
                rounds.append((item, []))
        return rounds if rounds[0][1] else rounds[1:]

    def _want(self, item):
        if item["line"].startswith(("<", "close")):
            self.wanted[item["who"]] += 1

    def _say(self, who, line):
        self.lines.setdefault(who, []).append(line)

    # Actions

    def _do_connect(self, action):
        who, headers = action["who"], action["headers"]
        one = self.peers[who] = peer.Peer(self.port)
        code, header_lines, body = one.handshake(action["path"], headers)
        if code != 101:
            for line in plan.refused(self.name, code, header_lines, body):
                self._say(who, line)
            return
        for line in plan.upgrade(self.name, code, header_lines, peer.HANDSHAKE_KEY):
            self._say(who, line)
        answered = any(line.lower().startswith("sec-websocket-protocol") for line in header_lines)
        if "Sec-WebSocket-Protocol" in headers and not answered:
            # What the recorder's client did: such an answer is an error for it.
            self._say(who, "error Server sent no subprotocol")
            self._say(who, plan.close(1006, ""))
            one.events.clear()
            one.end()

    def _do_send(self, action):
        who = action["who"]
        self._say(who, self._sent(action))
        self.peers[who].send(action["opcode"], self._live(action["payload"]))

    def _do_flood(self, action):
        for _ in range(action["count"]):
            self.peers[action["who"]].send(frames.TEXT, action["payload"])
        self._settle()

    def _do_close(self, action):
        self.peers[action["who"]].close(action["code"], action.get("reason", ""))

    def _do_signal(self, action):
        self.server.signal(getattr(signal, "SIG" + action["name"]))
        # The server answers no barrier any more; give it the time to say goodbye.
        deadline = time.monotonic() + STUCK_S
        while time.monotonic() < deadline and not all(one.ended for one in self.peers.values()):
            self._pump(0.02)

    def _do_post(self, action):
        self._http("events", action["body"].encode())

    def _do_publish(self, action):
        body = dict(action["body"])
        for who, live in self.live_ids.items():
            if body.get("socket_id") == f"<socket {who}>":
                body["socket_id"] = live
        self._http("events", json.dumps(body).encode())

    def _do_batch(self, action):
        self._http("batch_events", json.dumps(action["body"]).encode())

    def _do_terminate(self, action):
        self._http(f"users/{action['user']}/terminate_connections", b"{}")

    def _http(self, route, body):
        path = f"/apps/{signing.APP_ID}/{route}"
        target = signing.signed_target("POST", path, body)
        data, _ = peer.request(self.port, "POST", target, body)
        if self.records_http:
            code, _, rest = normal.split_response(data)
            for line in plan.answer(code, rest.decode()):
                self._say("HTTP", line)

    def _live(self, payload):
        """A recorded message with the signature of the live socket."""
        try:
            message = json.loads(payload)
            data = message["data"]
            auth = data["auth"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return payload
        fresh = signing.resubscribe(data, self.recorded_ids, self.live_ids)
        if fresh == auth:
            return payload
        return payload.replace(auth.encode(), fresh.encode())

    # Reading

    def _pump(self, wait_s):
        sockets = [one.socket for one in self.peers.values() if not one.ended]
        if sockets:
            select.select(sockets, [], [], wait_s)
        for one in self.peers.values():
            one.pump(0)

    def _settle(self):
        """Waits until the server has handled all that was sent, and all expected came.

        Two rounds of pings: what one socket sent may reach another one only after that
        one's first ping has been answered.
        """
        for _ in range(2):
            for one in self.peers.values():
                one.barrier()
            deadline = time.monotonic() + STUCK_S
            while time.monotonic() < deadline:
                if all(one.settled() for one in self.peers.values()):
                    break
                self._pump(0.01)
        deadline = time.monotonic() + MISSING_S
        while time.monotonic() < deadline and self._missing():
            self._pump(0.01)
        self._pump(0)

    def _missing(self):
        return any(
            self.received[who] + len(one.events) < self.wanted[who] and not one.ended
            for who, one in self.peers.items()
        )

    def _collect(self):
        for who, one in self.peers.items():
            for event in one.events:
                self.received[who] += 1
                self._say(who, self._line(who, event))
            one.events.clear()

    def _line(self, who, event):
        if event[0] == "text":
            self._learn_id(who, event[1])
            return "< " + normal.frame(event[1], self.live_ids)
        if event[0] == "close":
            return plan.close(event[1], event[2])
        return f"< {event[0]} '{event[1]}'"

    def _learn_id(self, who, text):
        found = re.search(r'connection_established.*?socket_id\\?":\\?"(\d+\.\d+)\\?"', text)
        if found:
            self.live_ids.setdefault(who, found[1])


def replay(name, case, steps, settings):
    """Both sides of a case: what Reverb answered and what Resound answers."""
    pieces = raw.pieces_of(case, steps)
    if pieces is not None:
        return raw.expected(steps), raw.run(pieces, settings, steps)
    one = Replay(name, case, steps, settings)
    return one.expected(), one.run()
