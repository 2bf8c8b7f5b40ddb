"""How long the binary takes from its start until it accepts connections: the median of ten."""

import socket
import statistics
import subprocess
import sys
import time

FLAGS = ["--host=127.0.0.1", "--app-id=a", "--app-key=k", "--app-secret=s", "--metrics-port=off"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(binary):
    port = free_port()
    began = time.monotonic()
    command = [binary, "start", f"--port={port}", *FLAGS]
    server = subprocess.Popen(command, cwd="/", env={}, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return time.monotonic() - began
            except ConnectionRefusedError:
                if server.poll() is not None or time.monotonic() - began > 30:
                    raise SystemExit("it does not start")
                time.sleep(0.0005)
    finally:
        server.terminate()
        server.wait(30)


times = [measure(sys.argv[1]) for _ in range(10)]
print(f"{statistics.median(times) * 1000:.1f} ms, of {min(times) * 1000:.1f} to {max(times) * 1000:.1f}")
