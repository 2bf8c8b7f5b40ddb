"""WebSocket frames as bytes: writing masked ones, reading any. No sockets here."""

import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
# Also what the recorder used, so that the raw cases look alike.
MASK = b"\x01\x02\x03\x04"


def encode(opcode, payload):
    """One final frame as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack("!H", size)
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack("!Q", size)
    masked = bytes(byte ^ MASK[i & 3] for i, byte in enumerate(payload))
    return head + MASK + masked


def decode(data):
    """The first frame of a server's bytes and what follows it: (opcode, payload, rest)."""
    if len(data) < 2:
        return None
    opcode, size, at = data[0] & 15, data[1] & 127, 2
    if size == 126:
        if len(data) < 4:
            return None
        size, at = struct.unpack("!H", data[2:4])[0], 4
    elif size == 127:
        if len(data) < 10:
            return None
        size, at = struct.unpack("!Q", data[2:10])[0], 10
    if len(data) < at + size:
        return None
    return opcode, data[at : at + size], data[at + size :]


def close_payload(payload):
    """A close frame's code and reason; 1005 is "none given"."""
    if len(payload) < 2:
        return 1005, ""
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode("utf-8", "replace")
