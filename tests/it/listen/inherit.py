"""Opens sockets, says where they are, and becomes the server: what systemd does.

inherit.py PROGRAM PID NAMES KIND... -- ARGUMENT...

PID is `own` or whatever else LISTEN_PID is to be, NAMES is LISTEN_FDNAMES (`-` for none).
"""

import fcntl
import os
import socket
import sys

program, pid, names = sys.argv[1:4]
end = sys.argv.index("--")
kinds, arguments = sys.argv[4:end], sys.argv[end + 1 :]


def listening(kind):
    if kind == "file":
        return os.open("/dev/null", os.O_RDONLY), "-"
    if kind == "udp":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif kind.startswith("unix:"):
        made = socket.socket(socket.AF_UNIX)
    else:
        made = socket.socket()
    made.bind(kind[5:] if kind.startswith("unix:") else ("127.0.0.1", 0))
    if kind == "tcp" or kind.startswith("unix:"):
        made.listen(100)
    name = made.getsockname()
    return made.detach(), name if isinstance(name, str) else "%s:%d" % name


made = [listening(kind) for kind in kinds]
# Out of the way first, since some of them may have the numbers that others get.
away = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number, _ in made]
for at, number in enumerate(away):
    os.dup2(number, 3 + at, inheritable=True)
    os.close(number)
print(" ".join(address for _, address in made), flush=True)
if "WAIT" in os.environ:
    sys.stdin.read()
environment = dict(os.environ)
environment["LISTEN_PID"] = str(os.getpid()) if pid == "own" else pid
environment["LISTEN_FDS"] = str(len(made))
if names != "-":
    environment["LISTEN_FDNAMES"] = names
os.execve(program, [program, *arguments], environment)
