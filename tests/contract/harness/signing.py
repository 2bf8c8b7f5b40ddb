"""Signatures: makes them, and finds out what a recorded one had signed.

A recorded signature is worth nothing on another day, since it covers a socket id or
a timestamp. What has to survive the replay is what was wrong with it, if anything.
"""

import hashlib
import hmac
import time
from urllib.parse import unquote

APP_ID = "my-app-id"
KEY = "my-app-key"
SECRET = "my-app-secret"

# The recordings were made within one hour; a timestamp near this one meant "now".
NEAR_S = 600
HOUR_S = 3600


def sign(text):
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


def md5(body):
    return hashlib.md5(body).hexdigest()


def split_target(target):
    """A target as its path and its parameters, in order and as they were sent."""
    path, mark, query = target.partition("?")
    if not mark:
        return path, []
    return path, [tuple(pair.partition("=")[::2]) for pair in query.split("&")]


def join_target(path, parameters):
    query = "&".join(f"{name}={value}" for name, value in parameters)
    return f"{path}?{query}" if query else path


def _text(method, path, parameters, body, decode, with_md5):
    """The text that a signature covers: Pusher's rule, with the recorder's deviations."""
    kept = {}
    for name, value in parameters:
        if name.startswith("auth_signature") or (name == "body_md5" and with_md5 != "as claimed"):
            continue
        kept[name] = unquote(value) if decode else value
    if body and with_md5 == "of the body":
        kept["body_md5"] = md5(body)
    query = "&".join(f"{name}={kept[name]}" for name in sorted(kept))
    return f"{method}\n{path}\n{query}"


def _ways(method, path, parameters, body):
    """Every way in which the recorder may have signed: a name and the text."""
    for with_md5 in ("of the body", "as claimed", "left out"):
        for decode in (True, False):
            signed = [(name, value) for name, value in parameters if name != "extra"]
            for subset in (parameters, signed):
                for said in (method, "GET"):
                    for where in (path, unquote(path), path.removeprefix("/ws")):
                        yield _text(said, where, subset, body, decode, with_md5)


def live_timestamp(recorded, day):
    """The timestamp of today that is as far from now as the recorded one was from then."""
    if not recorded.isdigit():
        return recorded
    distance = int(recorded) - day
    if abs(distance) <= NEAR_S:
        return str(int(time.time()))
    if abs(abs(distance) - HOUR_S) <= NEAR_S:
        return str(int(time.time()) + (HOUR_S if distance > 0 else -HOUR_S))
    return recorded


def resign(method, target, body, day, live_body=None):
    """The target of a recorded request with today's timestamp and signature.

    A recorded signature that nothing explains was wrong on purpose and stays. The live
    body differs from the recorded one where that held a socket id.
    """
    live_body = body if live_body is None else live_body
    path, parameters = split_target(target)
    recorded = [value for name, value in parameters if name.startswith("auth_signature")]
    fresh = []
    for name, value in parameters:
        if name == "auth_timestamp":
            value = live_timestamp(value, day)
        elif name == "body_md5" and body and value == md5(body):
            value = md5(live_body)
        fresh.append((name, value))
    if not recorded or not recorded[0]:
        return join_target(path, fresh)
    before = _ways(method, path, parameters, body)
    after = _ways(method, path, fresh, live_body)
    for old, new in zip(before, after):
        if sign(old) == recorded[0].lower():
            signature = sign(new)
            if recorded[0] != recorded[0].lower():
                signature = signature.upper()
            fresh = [(n, signature if n.startswith("auth_signature") else v) for n, v in fresh]
            break
    return join_target(path, fresh)


def signed_target(method, path, body=b"", query=(), signed_path=None):
    """A good target for a request that the recordings only imply."""
    parameters = [
        ("auth_key", KEY),
        ("auth_timestamp", str(int(time.time()))),
        ("auth_version", "1.0"),
        *query,
    ]
    if body:
        parameters.append(("body_md5", md5(body)))
    text = _text(method, signed_path or path, parameters, body, True, "of the body")
    return join_target(path, [*parameters, ("auth_signature", sign(text))])


def resubscribe(data, socket_ids, live_ids):
    """A recorded subscription's `auth`, made anew for the live sockets.

    `socket_ids` and `live_ids` name the sockets of the recording and of the replay; the
    signature is tried for each of them, because some cases use another socket's.
    """
    auth = data.get("auth")
    if not isinstance(auth, str):
        return auth
    key, colon, signature = auth.rpartition(":")
    tail = f":{data.get('channel')}"
    tails = [tail]
    if isinstance(data.get("channel_data"), str):
        tails.insert(0, f"{tail}:{data['channel_data']}")
    for who, recorded in socket_ids.items():
        for candidate in tails:
            if sign(recorded + candidate) == signature.lower() and who in live_ids:
                fresh = sign(live_ids[who] + candidate)
                if signature != signature.lower():
                    fresh = fresh.upper()
                return f"{key}{colon}{fresh}"
    return auth
