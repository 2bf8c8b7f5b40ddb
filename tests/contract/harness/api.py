"""Plays the recorded HTTP requests of a file, in order, on one server.

The answers depend on who is connected, so the sockets of the recording are there: A and B,
in the channels that its listings show.
"""

import json
import re

from . import cues, frames, normal, peer, plan, recordings, restore, signing
from .server import Server

# Both sockets' channels in the order in which they joined; a number is a presence user.
SCENE = {
    "A": ["lobby", "cache-h", "odd name/é", "private-h", ("presence-h", "1")],
    "B": ["lobby", ("presence-h", "2")],
}
SDK_SCENE = {"A": ["notices.1", ("presence-room.1", "1")]}
SCENES = {"http-general": {}, "limits-path": {}, "sdk-requests": SDK_SCENE}


class Sockets:
    """Subscribed sockets that only listen."""

    def __init__(self, port, scene):
        self.port = port
        self.peers = {}
        self.ids = {}
        for who, channels in scene.items():
            self.join(who, channels)

    def join(self, who, channels):
        one = self.peers[who] = peer.Peer(self.port)
        one.handshake(f"/app/{signing.KEY}?protocol=7")
        self._settle(one)
        data = json.loads(json.loads(one.events[0][1])["data"])
        self.ids[who] = data["socket_id"]
        for channel in channels:
            one.send(frames.TEXT, json.dumps(self._subscribe(who, channel)).encode())
        self._settle(one)

    def _subscribe(self, who, channel):
        user = None
        if isinstance(channel, tuple):
            channel, user = channel
        data = {"channel": channel}
        text = f"{self.ids[who]}:{channel}"
        if user is not None:
            data["channel_data"] = json.dumps({"user_id": user, "user_info": {}})
            text += ":" + data["channel_data"]
        data["auth"] = f"{signing.KEY}:{signing.sign(text)}"
        return {"event": "pusher:subscribe", "data": data}

    def _settle(self, one):
        for _ in range(2):
            one.barrier()
            for _ in range(200):
                if one.settled():
                    break
                one.pump(0.01)

    def settle(self):
        for one in self.peers.values():
            self._settle(one)

    def close_all(self):
        for one in self.peers.values():
            one.close(1000)
            for _ in range(100):
                if one.ended:
                    break
                one.pump(0.01)
            one.end()
        self.peers.clear()


def response_lines(data, closed):
    """Everything that came on a connection as lines, one answer after the other."""
    lines = []
    while data:
        found = normal.split_response(data)
        if found is None:
            lines.append(f"bytes {data.decode('latin1')!r}")
            break
        code, header_lines, rest = found
        if code == 100:
            lines.append("status 100")
            data = rest
            continue
        length = normal.content_length(header_lines)
        body = rest if length is None else rest[:length]
        data = b"" if length is None else rest[length:]
        lines += _answer_lines(code, header_lines, body)
    if not lines:
        lines.append("no answer")
    lines.append("connection closed by the server" if closed else "connection left open")
    return lines


def _answer_lines(code, header_lines, body):
    lines = [f"status {code}", *normal.headers(header_lines)]
    lines.append(f"body {normal.json_text(body.decode('utf-8', 'replace'))}")
    return lines


def expected_lines(response):
    """A recorded answer as lines."""
    if "raw" in response:
        return response_lines(response["raw"].encode("latin1"), response["end"] == "server closed")
    code = int(response["status_line"].split()[1])
    lines = _answer_lines(code, response["headers"], response["body"].encode())
    closed = response["connection"] == "server closed"
    return [*lines, "connection closed by the server" if closed else "connection left open"]


def the_day(recording):
    """The timestamp that most requests of a file carry."""
    found = re.findall(r"auth_timestamp=(\d{10})", json.dumps(recording))
    return int(max(set(found), key=found.count)) if found else 0


class File:
    """One recorded file of HTTP requests; `replay` yields every case with both sides."""

    def __init__(self, name, recording):
        self.name = name
        self.recording = recording
        self.day = the_day(recording)
        self.general = cues.general_requests() if name == "http-general" else {}
        self.prefixed = cues.prefixed_requests() if name == "limits-path" else {}

    def replay(self):
        scene = SCENES.get(self.name, SCENE)
        with Server(recordings.settings(self.name, self.recording)) as server:
            self.sockets = Sockets(server.port, scene)
            self.port = server.port
            for case, recorded in self.recording["cases"].items():
                if not isinstance(recorded, dict) or f"{self.name}:{case}" in recordings.SKIPPED:
                    continue
                self._prepare(case)
                try:
                    sides = self._case(case, recorded)
                except Exception as error:  # It must not keep the other cases from running.
                    sides = {"HTTP": ["replayed"]}, {"HTTP": [f"failed: {error!r}"]}
                yield case, *sides

    def _prepare(self, case):
        wish = cues.SOCKETS.get(case)
        if wish:
            self.sockets.close_all()
        if wish == "user 3":
            self.sockets.join("A", [("presence-h", "3")])
        if wish == "one idle":
            self.sockets.join("A", [])
        if case == "channel: cache-h info=cache, after an event":
            body = b'{"name":"ev","channel":"cache-h","data":"{\\"c\\":1}"}'
            path = f"/apps/{signing.APP_ID}/events"
            peer.request(self.port, "POST", signing.signed_target("POST", path, body), body)

    def _case(self, case, recorded):
        if "wire" in recorded:
            wire = recorded["wire"][0]
            answer = {"raw": wire["response"], "end": "server closed"}
            return {"HTTP": expected_lines(answer)}, {"HTTP": self._wire(wire["request"])}
        if case in self.prefixed:
            live = response_lines(*peer.request(self.port, "GET", self.prefixed[case]))
            return {"HTTP": expected_lines(recorded)}, {"HTTP": live}
        want = {"HTTP": expected_lines(recorded["response"])}
        if case in self.general:
            live = response_lines(*peer.exchange(self.port, self.general[case]))
        else:
            live = self._request(recorded["request"])
        have = {"HTTP": live}
        self._sockets_too(recorded, want, have)
        return want, have

    def _sockets_too(self, recorded, want, have):
        """What the sockets saw, where the recording says it."""
        if "frames" in recorded:
            self.sockets.settle()
            text = json.dumps([event for one in self.sockets.peers.values() for event in one.events])
            want["sockets"] = [f"frames {recorded['frames']}"]
            have["sockets"] = [f"frames {text.count('sent-anyway')}"]
        if "socket" in recorded:
            self.sockets.settle()
            closes = [event for event in self.sockets.peers["A"].events if event[0] == "close"]
            want["A"] = [plan.close(recorded["socket"]["code"], recorded["socket"]["reason"])]
            have["A"] = [plan.close(*event[1:]) for event in closes]

    def _request(self, recorded):
        body = recorded.get("body")
        body = None if body is None else restore.text(body)
        target = recorded["target"]
        if body is not None:
            live = re.sub(r'("socket_id":")\d{3,}\.\d{3,}', rf"\g<1>{self.sockets.ids.get('A')}", body)
            target = signing.resign(
                recorded["method"], target, body.encode(), self.day, live.encode()
            )
            body = live.encode()
        else:
            target = signing.resign(recorded["method"], target, b"", self.day)
        extra = recorded.get("headers") or {}
        data, closed = peer.request(self.port, recorded["method"], target, body, extra)
        return response_lines(data, closed)

    def _wire(self, text):
        """A request of the PHP SDK, byte for byte but for signature, socket id and length."""
        head, _, body = text.partition("\r\n\r\n")
        lines = head.split("\r\n")
        method, target, version = lines[0].split(" ")
        live = re.sub(r'("socket_id":")[\d.]+', rf"\g<1>{self.sockets.ids['A']}", body)
        target = signing.resign(method, target, body.encode(), self.day, live.encode())
        lines[0] = f"{method} {target} {version}"
        lines = [
            f"Content-Length: {len(live.encode())}" if line.startswith("Content-Length") else line
            for line in lines
        ]
        sent = ("\r\n".join(lines) + "\r\n\r\n" + live).encode()
        return response_lines(*peer.exchange(self.port, [sent], linger_s=0.04, empty_s=3))
