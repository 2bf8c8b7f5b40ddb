"""What the recorder did without writing it down.

The recordings hold what went over the sockets of the case. They leave out most of the
publishes that caused an event, the raw bytes of some requests, and the options of the
client. Each was concluded from the answers and the case's name.

A cue is placed before the first received frame that contains a text, or at the end.
"""

from . import frames, signing

EVENT = {"name": "ev", "data": '{"x":1}'}
PING = b'{"event":"pusher:ping","data":{}}'
WIRE_PING = frames.encode(frames.TEXT, PING)


def publish(*channels, **fields):
    return {"do": "publish", "body": {**EVENT, "channels": list(channels), **fields}}


def numbered(channel, name, number):
    return publish(channel, name=name, data=f'{{"n":{number}}}')


def terminate(user):
    return {"do": "terminate", "user": user}


def send(who, opcode, payload):
    return {"do": "send", "who": who, "opcode": opcode, "payload": payload}


BATCH = {
    "do": "batch",
    "body": {
        "batch": [
            {"name": "one", "channel": "lobby", "data": '{"i":1}'},
            {"name": "two", "channel": "lobby", "data": "txt"},
        ]
    },
}

END = None
LOBBY = ('"event":"ev"', publish("lobby"))
REMOVED_2 = "member_removed"


def _cache(kind, second=True):
    cues = [('"first"', numbered(kind, "first", 1))]
    if second:
        cues.append(('"second"', numbered(kind, "second", 2)))
    return cues


# File and case to a list of (place, cue).
CUES = {
    "ws-subscribe": {
        "public": [LOBBY],
        "twice": [LOBBY],
        "unsubscribe": [(END, publish("lobby"))],
        "private, good": [('"event":"ev"', publish("private-x"))],
        "encrypted, good": [
            (
                '"event":"ev"',
                publish("private-encrypted-x", data='{"nonce":"n","ciphertext":"c"}'),
            )
        ],
    },
    "ws-presence": {
        "without user_info": [('"event":"ev"', publish("presence-r"))],
        "server event on presence": [('"event":"ev"', publish("presence-r"))],
    },
    "ws-cache": {
        "cache-a: miss, event, hit": _cache("cache-a"),
        "private-cache-a: miss, event, hit": _cache("private-cache-a"),
        "private-encrypted-cache-a: miss, event, hit": _cache("private-encrypted-cache-a"),
        "presence-cache-a: miss, event, hit": _cache("presence-cache-a", second=False),
        "event on an empty cache channel, then subscribe": [
            ("connection_established", numbered("cache-empty", "e", 1))
        ],
        "channel emptied in between": [('"event":"e"', numbered("cache-gone", "e", 1))],
        "subscription again: cached event again?": [
            ('"event":"e"', numbered("cache-r", "e", 1))
        ],
    },
    "ws-server-events": {
        "one event on two channels of one socket": [('"event":"ev"', publish("l1", "l2"))],
        "socket_id excluded": [
            ('"event":"ev"', publish("lobby", data="{}", socket_id="<socket A>"))
        ],
        "names with pusher: and pusher_internal: prefixes": [
            ("pusher:error", publish("lobby", name="pusher:error", data='{"code":4000}')),
            ("member_added", publish("lobby", name="pusher_internal:member_added")),
            ("client-e", publish("lobby", name="client-e")),
        ],
        "batch": [('"one"', BATCH)],
        "terminate_connections": [("close", terminate("2"))],
        "terminate_connections, one socket is on a private channel only": [
            (END, terminate("2"))
        ],
        "terminate_connections, the user is on presence AND private": [
            ("close", terminate("2"))
        ],
        "terminate_connections, idle socket without any channel": [("close", terminate("2"))],
        "terminate_connections for a numeric user_id": [(REMOVED_2, terminate("2"))],
    },
    "ws-protocol": {},
    "ws-client-events": {
        "100 in a row": [
            (
                END,
                {
                    "do": "flood",
                    "who": "A",
                    "count": 100,
                    "payload": b'{"event":"client-e","channel":"private-x","data":{"a":1}}',
                },
            )
        ]
    },
    "limits-quota": {
        "second connection, first is subscribed (limit 1)": [LOBBY],
    },
    "limits-big": {
        "REVERB_MAX_REQUEST_SIZE=200000 REVERB_APP_MAX_MESSAGE_SIZE=100: event of 50 000 bytes": [
            ('"event":"ev"', publish("lobby", data="d" * 50000))
        ]
    },
    "limits-origin": {
        f"allowed good.example; Origin: {origin}": [LOBBY]
        for origin in (
            "http://evil.example",
            "https://good.example",
            "https://good.example:8443",
            "http://sub.good.example",
            "null",
            "undefined",
        )
    },
}

# Headers of the handshake that the recording does not show.
HANDSHAKE = {
    "Sec-WebSocket-Protocol offered": {"Sec-WebSocket-Protocol": "chat"},
    "permessage-deflate offered": {
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"
    },
}

# Frames that have to go out as binary ones.
BINARY = {"binary frame with valid JSON"}

# Raw cases whose bytes were cut or not recorded.
_UPGRADE = (
    b"GET /app/my-app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
UPGRADE = _UPGRADE
RAW_FRAMES = {
    "raw: two messages in one segment": [WIRE_PING + WIRE_PING],
    "raw: ping of 126 bytes": [frames.encode(frames.PING, b"x" * 126)],
}
SAME_SEGMENT = {"raw: frame in the same segment as the handshake": [_UPGRADE + WIRE_PING]}


# What http-queries.json did to the sockets between its requests.
SOCKETS = {
    "terminate: user not connected": "close all",
    "terminate: user 3": "user 3",
    "terminate: no sockets at all, empty body": "close all",
    "connections: one socket without any channel": "one idle",
}


def _up(*lines):
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _post(headers, body, sent=None):
    target = signing.signed_target("POST", f"/apps/{signing.APP_ID}/events", body)
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return _up(*lines), body if sent is None else sent


def general_requests():
    """The raw requests of http-general.json, as lists for `peer.exchange`."""
    body = b'{"name":"ev","channels":["lobby"],"data":"{\\"x\\":1}"}'
    size = f"Content-Length: {len(body)}"
    up = _up("GET /up HTTP/1.1", "Host: x")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    plain = _post([size], body)
    return {
        "garbage instead of a request": [b"hello\r\n\r\n"],
        "bare LF line ends": [b"GET /up HTTP/1.1\nHost: x\n\n"],
        "no Host header": [_up("GET /up HTTP/1.1")],
        "HTTP/1.0 request": [_up("GET /up HTTP/1.0", "Host: x")],
        "request in three pieces": [up[:8], 0.1, up[8:20], 0.1, up[20:]],
        "two requests pipelined": [up + up],
        "keep-alive: second request after the first answer": [up, 0.1, up],
        "headers of 11 000 bytes": [
            _up("GET /up HTTP/1.1", "Host: x", "X-Long: " + "x" * 11000)
        ],
        "absolute-form target": [_up("GET http://localhost/up HTTP/1.1", "Host: x")],
        "chunked body": list(_post(["Transfer-Encoding: chunked"], body, chunks)),
        "Expect: 100-continue": [
            _post([size, "Expect: 100-continue"], body)[0],
            0.3,
            body,
        ],
        "body in two pieces": [plain[0] + body[:20], 0.2, body[20:]],
        "body, no Content-Length": [b"".join(_post([], body))],
        "Content-Length shorter than the body": [
            b"".join(_post([f"Content-Length: {len(body) - 5}"], body))
        ],
        "Content-Length longer than the body": [
            b"".join(_post([f"Content-Length: {len(body) + 5}"], body))
        ],
        "lower-case content-length": [b"".join(_post([size.lower()], body))],
    }


def prefixed_requests():
    """The HTTP requests of limits-path.json, of which only the answers were recorded."""
    path = f"/apps/{signing.APP_ID}/channels"
    return {
        "prefix /ws: GET channels signed with the prefix": signing.signed_target(
            "GET", "/ws" + path
        ),
        "prefix /ws: GET channels signed without the prefix": signing.signed_target(
            "GET", "/ws" + path, signed_path=path
        ),
        "prefix /ws: GET /up": "/up",
        "prefix /ws: GET /ws/up": "/ws/up",
    }
