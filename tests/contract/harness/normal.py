"""Both sides of a comparison in one form, so that only what matters can differ.

Not compared: dates, ids of requests, lengths, the case and padding of header names, the HTTP version and
the reason phrase of a status line, and the order of JSON keys. Socket ids and signatures
are replaced by what they stand for.
"""

import base64
import hashlib
import json
import re

LONG = 400
# What says nothing about the server's behaviour. `connection` is compared by looking at it.
IGNORED_HEADERS = {"date", "content-length", "connection", "server", "keep-alive", "x-request-id"}


def shorten(text):
    """A long text by its beginning, length and digest."""
    if len(text) <= LONG:
        return text
    digest = hashlib.md5(text.encode()).hexdigest()[:8]
    return f"{text[:60]}… ({len(text.encode())} bytes, md5 {digest})"


def _canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def json_text(text):
    """JSON in canonical form, anything else as it came, but for distances from now."""
    try:
        canonical = _canonical(json.loads(text))
        return shorten(re.sub(r'"ttl":1[78]\d\d(?=\D)', '"ttl":"about 1800"', canonical))
    except ValueError:
        return shorten(re.sub(r"\d+ s (behind|ahead)", r"N s \1", text))


def frame(text, ids=None):
    """A text frame: event, channel, other keys, and last its data.

    Data of the server's own events is compared as JSON, in single quotes if it was a
    string. Data of an application's event has to be the same to the byte.
    """
    for who, socket_id in (ids or {}).items():
        text = text.replace(socket_id, f"<socket {who}>")
    try:
        message = json.loads(text)
    except ValueError:
        return shorten(f"not JSON: {text}")
    if not isinstance(message, dict):
        return shorten(_canonical(message))
    parts = [str(message.pop("event", "no event"))]
    data_given = "data" in message
    data = message.pop("data", None)
    for key in sorted(message):
        parts.append(f"{key}={_canonical(message[key])}")
    if data_given:
        parts.append(f"data={_data(data, parts[0])}")
    return shorten(" ".join(parts))


def recorded(text, ids=None):
    """A frame of Reverb's. The data of its errors is text; ours has to be an object."""
    try:
        message = json.loads(text)
        if message["event"] == "pusher:error":
            message["data"] = json.loads(message["data"])
            text = _canonical(message)
    except (ValueError, TypeError, KeyError):
        pass
    return frame(text, ids)


def _data(data, event):
    if not isinstance(data, str):
        return _canonical(data)
    if event.startswith(("pusher:", "pusher_internal:")):
        try:
            data = _canonical(json.loads(data))
        except ValueError:
            pass
    return f"'{data}'"


def headers(lines, key=None):
    """Header lines as sorted `name: value`, without those that say nothing."""
    kept = []
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name in IGNORED_HEADERS:
            continue
        if name == "sec-websocket-accept" and key is not None:
            value = "right" if value == accept(key) else "wrong"
        if name == "upgrade":
            value = value.lower()
        kept.append(f"header {name}: {value}")
    return sorted(kept)


def accept(key):
    """RFC 6455's answer to a handshake's key."""
    text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


def split_response(data):
    """Raw bytes as (code, header lines, rest), or None if there is no whole head."""
    head, mark, rest = data.partition(b"\r\n\r\n")
    if not mark:
        return None
    lines = head.decode("latin1").split("\r\n")
    found = re.match(r"HTTP/1\.[01] (\d{3})", lines[0])
    return (int(found[1]) if found else 0), lines[1:], rest


def content_length(lines):
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length":
            return int(value.strip())
    return None
