"""TLS handshakes for each second of a server's processor time, whole ones and those that a
session ticket shortens, against OpenSSL's own `s_server` in turns.

One client connects, shakes hands and goes, again and again. Both servers have one core;
what is counted is what their threads have run, so that how fast the client is plays no part.
`s_server` serves one connection at a time and knows no HTTP, so it does less."""

import os
import socket
import ssl
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measure.servers import APP, Bench, Certificate, Failure, Server, free_port, tell

# Part of what s_server does in the same time.
GOAL = 0.8
KEYS = {
    "ECDSA P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "RSA 2048": ["rsa:2048"],
}
RESUMED = (False, True)
CONNECTIONS = 2000
WARM_UP = 100


@dataclass(frozen=True)
class Row:
    """What is measured."""

    key: str
    resumed: bool

    def name(self) -> str:
        kind = "resumed" if self.resumed else "full"
        return f"TLS 1.3 handshakes, {kind}, {self.key}"


def certificate(directory: Path, key: str) -> Certificate:
    made = Certificate(directory / f"{key}.pem", directory / f"{key}.key")
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", *KEYS[key]]
    command += ["-subj", "/CN=resound bench", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"openssl cannot make a certificate: {done.stderr.strip()}")
    return made


def s_server(bench: Bench, files: Certificate) -> Server:
    port = free_port()
    command = ["taskset", "-c", str(bench.server_cpu), "openssl", "s_server", "-quiet", "-rev"]
    command += ["-accept", f"127.0.0.1:{port}", "-tls1_3"]
    command += ["-cert", str(files.certificate), "-key", str(files.key)]
    return Server(command, port, {})


def resound(bench: Bench, files: Certificate) -> Server:
    port = free_port()
    command = ["taskset", "-c", str(bench.server_cpu), str(bench.binaries.resound), "start"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--app-id", APP["id"], "--app-key", APP["key"], "--app-secret", APP["secret"]]
    command += ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    command += ["--metrics-port", "off"]
    return Server(command, port, {})


def client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # What is measured is the server, and the client has half of the machine.
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(context: ssl.SSLContext, port: int, session: ssl.SSLSession | None) -> None:
    """One connection, until the other side has ended it, too."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, session=session) as stream:
        if stream.session_reused != (session is not None):
            raise Failure("a session was resumed that should not be, or the other way round")
        try:
            stream.unwrap().close()
        except (ssl.SSLError, OSError) as error:
            raise Failure(f"the connection did not end as it should: {error}") from None


def ticket(context: ssl.SSLContext, port: int) -> ssl.SSLSession:
    """What a session can be resumed with, which comes before the first answer."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    with context.wrap_socket(plain) as stream:
        # One answers, the other sends it back.
        stream.sendall(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        stream.recv(4096)
        return stream.session


def running_nanoseconds(pid: int) -> int:
    """How long all threads of a process have run."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def per_second(server: Server, row: Row) -> float:
    context = client()
    session = ticket(context, server.port) if row.resumed else None

    def repeat(count: int) -> None:
        for _ in range(count):
            connect(context, server.port, session)

    repeat(WARM_UP)
    before = running_nanoseconds(server.process.pid)
    repeat(CONNECTIONS)
    spent = running_nanoseconds(server.process.pid) - before
    return CONNECTIONS / (spent / 1e9)


def handshakes(bench: Bench, repetitions: int) -> bool:
    """Whether each row reaches the goal."""
    os.sched_setaffinity(0, {bench.load_cpu})
    rows = [Row(key, resumed) for key in KEYS for resumed in RESUMED]
    found: dict[Row, list[tuple[float, float]]] = {row: [] for row in rows}
    with tempfile.TemporaryDirectory() as directory:
        files = {key: certificate(Path(directory), key) for key in KEYS}
        for repetition in range(repetitions):
            for row in rows:
                tell(f"{row.name()}, {repetition + 1} of {repetitions}")
                with s_server(bench, files[row.key]) as server:
                    theirs = per_second(server, row)
                with resound(bench, files[row.key]) as server:
                    ours = per_second(server, row)
                found[row].append((theirs, ours))
    print("| for each second of processor time | s_server | resound | ratio | goal |")
    print("|---|---|---|---|---|")
    is_good = True
    for row, pairs in found.items():
        theirs, ours = (statistics.median(side) for side in zip(*pairs))
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        is_good &= ratio >= GOAL
        print(f"| {row.name()} | {theirs:,.0f} | {ours:,.0f} | {ratio:.2f} × | ≥ {GOAL} × |")
    return is_good
