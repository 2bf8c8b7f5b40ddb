"""A Debian that runs systemd, without a machine of its own: a root made by debootstrap, booted
by systemd-nspawn, with nothing but a loopback of its own as its network.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# Longer than anything takes; what hangs must end.
PATIENCE = 60


class Failed(Exception):
    """A command in the machine has failed."""


class Machine:
    """One that is booted; its files are below `root`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="resound-machine-"))
        self.root = self.folder / "root"
        made = [PROJECT / "scripts/debian-root", self.root, "systemd", "systemd-sysv"]
        subprocess.run(made, check=True, timeout=600)
        # Nothing of Debian's own comes in between.
        for unit in ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "console-getty.service"]:
            (self.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        self.nspawn = None
        self.leader = None

    def boot(self):
        command = ["systemd-nspawn", "--quiet", "--directory", self.root, "--private-network", "--register=no"]
        command += ["--keep-unit", "--boot", "--console=pipe", "--hostname=resound"]
        self.log = open(self.folder / "log", "wb")
        self.nspawn = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True
        )
        eventually("systemd runs in the machine", self.find_leader)
        state = lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip()
        eventually("the machine has booted", lambda: state() in ("running", "degraded"))

    def find_leader(self):
        """The process that is number 1 in there: a child of systemd-nspawn's."""
        if self.nspawn.poll() is not None:
            raise Failed("systemd-nspawn has ended:\n" + (self.folder / "log").read_text(errors="replace"))
        task = f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children"
        for child in Path(task).read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                self.leader = child
                return True
        return False

    def command(self, *arguments):
        """A command that can be run here, and runs there."""
        enter = ["nsenter", "--target", self.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        plain = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        return [*enter, *plain, *map(str, arguments)]

    def run(self, *arguments, check=True, stdin=None):
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=PATIENCE, input=stdin or ""
        )
        if check and done.returncode != 0:
            raise Failed(f"{' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, text, **more):
        return self.run("sh", "-c", text, **more)

    def inside(self, *arguments):
        """A command of the host's, in the network of the machine."""
        return ["nsenter", "--target", self.leader, "--net", *map(str, arguments)]

    def path(self, inner):
        return self.root / str(inner).lstrip("/")

    def write(self, inner, text):
        path = self.path(inner)
        path.parent.mkdir(parents=True, exist_ok=True)
        # In place: it keeps its owner and its permissions.
        with open(path, "w") as file:
            file.write(text)

    def copy(self, source, inner):
        shutil.copyfile(source, self.path(inner))
        return inner

    def end(self):
        if self.nspawn is not None and self.nspawn.poll() is None:
            os.kill(int(self.leader), signal.SIGKILL) if self.leader else self.nspawn.kill()
            try:
                self.nspawn.wait(30)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
            self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def eventually(what, is_so, patience=PATIENCE):
    """Waits until it is so; what is not so yet may also be told by `Failed`."""
    deadline = time.monotonic() + patience
    while True:
        if is_so():
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.05)
