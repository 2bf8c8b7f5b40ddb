"""The image: the real Dockerfile, built by buildah, and run as Kubernetes would with
`runAsNonRoot`, `readOnlyRootFilesystem` and all capabilities dropped.

RESOUND_BIN is a binary to put in place of what the first stage compiles; without it, the stage is
run, with this machine's Rust.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from machine import PROJECT, eventually

DOCKERFILE = (PROJECT / "Dockerfile").read_text()
BINARY = os.environ.get("RESOUND_BIN")
SETTINGS = {
    "REVERB_APP_ID": "my-app-id",
    "REVERB_APP_KEY": "my-app-key",
    "REVERB_APP_SECRET": "a-secret-of-its-own",
}


class Images:
    """A store of images of its own, that leaves nothing behind."""

    def __init__(self, folder):
        self.folder = folder
        self.command = ["buildah", "--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]

    def run(self, *arguments, timeout=120):
        command = [*map(str, self.command), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout.strip()

    def base(self, name, packages=(), change=None, environment=()):
        """An image of Debian with packages, tagged as the Dockerfile names it."""
        root = self.folder / "base"
        subprocess.run([PROJECT / "scripts/debian-root", root, *packages], check=True, timeout=900)
        if change:
            change(root)
        archive = self.folder / "base.tar"
        subprocess.run(["tar", "-C", root, "--numeric-owner", "-cf", archive, "."], check=True, timeout=300)
        shutil.rmtree(root)
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, archive, "/", timeout=600)
        for variable in environment:
            self.run("config", "--env", variable, container)
        self.run("commit", "--quiet", "--rm", container, f"docker.io/library/{name}", timeout=600)
        archive.unlink()

    def build(self):
        built = re.findall(r"(?m)^FROM (\S+)", DOCKERFILE)
        rust, debian = built
        self.base(debian)
        replaced = []
        if BINARY:
            folder = self.folder / "compiled"
            folder.mkdir()
            shutil.copy(BINARY, folder / "resound")
            replaced = ["--build-context", f"build={folder}"]
        else:
            toolchain = "PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.base(rust, ["gcc", "libc6-dev"], add_rust, [toolchain, "CARGO_HOME=/usr/local/cargo"])
        arguments = ["--build-arg", "RESOUND_VERSION=1.2.3", "--build-arg", "RESOUND_COMMIT=abcdef123 2026-01-02"]
        arguments += ["--build-arg", "RESOUND_REVISION=abcdef1234"]
        command = ["bud", "--isolation", "chroot", "--format", "docker", "--pull-never", *replaced, *arguments]
        self.run(*command, "--tag", "resound", PROJECT, timeout=1500)

    def mounted(self):
        """The files of a container of the image."""
        self.container = self.run("from", "--pull-never", "resound")
        return Path(self.run("mount", self.container))

    def end(self):
        self.run("rm", "--all")
        self.run("rmi", "--all", "--force")


def add_rust(root):
    """This machine's Rust, where the image of the Rust project has it."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    toolchain = root / "usr/local/rustup/toolchains/stable"
    ignored = shutil.ignore_patterns("doc", "man", "zsh", "*.html")
    shutil.copytree(sysroot, toolchain, symlinks=True, ignore=ignored)
    programs = root / "usr/local/cargo/bin"
    programs.mkdir(parents=True)
    for program in ["cargo", "rustc"]:
        (programs / program).symlink_to(f"/usr/local/rustup/toolchains/stable/bin/{program}")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        shutil.copy(certificates, root / "etc/ssl/certs/ca-certificates.crt")


class Running:
    """The image's own command, as number 1 of a process namespace, on a loopback of its own."""

    def __init__(self, image, settings=None, home=None, command=None):
        self.image = image
        words = image.config["Entrypoint"] + (command or image.config["Cmd"])
        environment = dict(entry.split("=", 1) for entry in image.config["Env"])
        environment.update(SETTINGS if settings is None else settings)
        given = [f"{name}={value}" for name, value in environment.items()]
        root = image.root
        steps = [
            "ip link set lo up",
            f"mount --bind {root} {root}",
            f"mount -t proc proc {root}/proc",
            *([f"mount --bind {home} {root}/srv"] if home else []),
            f"mount -o remount,bind,ro {root}",
        ]
        user, group = image.config["User"].split(":")
        rights = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--inh-caps=-all"]
        rights += ["--bounding-set=-all", "--no-new-privs"]
        inner = ["chroot", str(root), "env", "-i", f"--chdir={image.config['WorkingDir']}", *given, *rights, *words]
        script = " && ".join([*steps, 'exec "$@"'])
        unshare = ["unshare", "--pid", "--fork", "--mount", "--net", "--ipc", "--uts", "--kill-child"]
        self.process = subprocess.Popen(
            [*unshare, "sh", "-c", script, "sh", *inner], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait_until_healthy(self):
        eventually("the health check passes", lambda: self.health() == 0)

    @property
    def first(self):
        """Its number out here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        eventually("it is started", lambda: children.read_text().strip())
        return int(children.read_text().split()[0])

    def inside(self, *command):
        entered = ["nsenter", "--target", str(self.first), "--net", "--pid", "--mount", "--root", "--wd"]
        environment = [f"{name}={value}" for name, value in SETTINGS.items()] + self.image.config["Env"]
        done = subprocess.run(
            [*entered, "env", "-i", *environment, *command], capture_output=True, text=True, timeout=30
        )
        return done

    def health(self):
        check = self.image.config["Healthcheck"]["Test"]
        assert check[0] == "CMD", check
        return self.inside("setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", *check[1:]).returncode

    def client(self):
        program = Path(__file__).with_name("client.py")
        command = ["nsenter", "--target", str(self.first), "--net", sys.executable, "-B", str(program), "8080"]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline() == "ready\n"
        return client

    @staticmethod
    def last_word(client):
        """What the client says of how it was closed; it ends by itself then."""
        said = client.stdout.readline()
        client.communicate(timeout=10)
        return said

    def up(self):
        code = "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080); c.request('GET', '/up'); print(c.getresponse().status)"
        entered = ["nsenter", "--target", str(self.first), "--net", sys.executable, "-c", code]
        return subprocess.run(entered, capture_output=True, text=True, timeout=30).stdout.strip()

    def signal(self, number):
        os.kill(self.first, number)

    def ended(self):
        """Its exit code, and what it has said."""
        said, _ = self.process.communicate(timeout=30)
        return self.process.returncode, said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="resound-images-")))
        cls.images = Images(folder)
        cls.addClassCleanup(cls.images.end)
        cls.images.build()
        cls.root = cls.images.mounted()
        described = json.loads(cls.images.run("inspect", "--type", "image", "resound"))
        cls.config = described["Docker"]["config"]

    def test_it_is_described_as_docker_and_kubernetes_need_it(self):
        config = self.config
        self.assertRegex(config["User"], r"^[1-9]\d*:[1-9]\d*$")
        self.assertEqual(config["Entrypoint"] + config["Cmd"], ["resound", "start"])
        self.assertEqual(config["Healthcheck"]["Test"], ["CMD", "resound", "health"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(list(config["ExposedPorts"]), ["8080/tcp"])
        self.assertEqual(config["WorkingDir"], "/srv")
        labels = config["Labels"]
        self.assertEqual(labels["org.opencontainers.image.version"], "1.2.3")
        self.assertEqual(labels["org.opencontainers.image.revision"], "abcdef1234")
        self.assertFalse((self.root / "build").exists(), "the sources are in it")

    def test_the_version_has_the_commit(self):
        with Running(self, command=["--version"]) as running:
            code, said = running.ended()
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"^resound \d+\.\d+\.\d+ \([0-9a-f]{9}(-dirty)? \d{4}-\d\d-\d\d\)$")
        if not BINARY:
            self.assertIn("(abcdef123 2026-01-02)", said)

    def test_it_serves_as_number_1_without_any_right(self):
        with Running(self) as running:
            running.wait_until_healthy()
            self.assertEqual(running.inside("cat", "/proc/1/comm").stdout.strip(), "resound")
            status = running.inside("cat", "/proc/1/status").stdout
            self.assertRegex(status, r"(?m)^Uid:\s+10001\s+10001\s+10001\s+10001$")
            self.assertRegex(status, r"(?m)^CapBnd:\s+0+$")
            self.assertRegex(status, r"(?m)^NoNewPrivs:\s+1$")
            self.assertIn("Read-only", running.inside("touch", "/srv/x").stderr)
            client = running.client()
            running.signal(signal.SIGTERM)
            code, said = running.ended()
            self.assertEqual(running.last_word(client), "closed 1001\n")
            self.assertEqual(code, 0, said)

    def test_it_drains(self):
        with Running(self, {**SETTINGS, "RESOUND_DRAIN_SECONDS": "3", "RESOUND_DRAIN_PAUSE": "1"}) as running:
            running.wait_until_healthy()
            client = running.client()
            self.assertEqual(running.up(), "200")
            running.signal(signal.SIGTERM)
            eventually("/up tells balancers", lambda: running.up() == "503")
            self.assertNotEqual(running.health(), 0)
            self.assertEqual(running.last_word(client), "closed 4200\n")
            self.assertEqual(running.ended()[0], 0)

    def test_ctrl_c_ends_it(self):
        with Running(self) as running:
            running.wait_until_healthy()
            running.signal(signal.SIGINT)
            self.assertEqual(running.ended()[0], 0)

    def test_without_an_application_it_says_so_and_ends_with_64(self):
        with Running(self, {}) as running:
            code, said = running.ended()
        self.assertEqual(code, 64, said)
        self.assertIn("REVERB_APP_ID", said)

    def test_a_dotenv_that_is_mounted_is_read_or_told(self):
        with tempfile.TemporaryDirectory() as home:
            os.chmod(home, 0o755)
            file = Path(home) / ".env"
            file.write_text("".join(f"{name}={value}\n" for name, value in SETTINGS.items()))
            with Running(self, {}, home) as running:
                running.wait_until_healthy()
                running.signal(signal.SIGTERM)
                self.assertEqual(running.ended()[0], 0)
            file.chmod(0o600)
            with Running(self, {}, home) as running:
                code, said = running.ended()
            self.assertEqual(code, 64, said)
            self.assertIn(".env", said)
            self.assertIn("ermission denied", said)

    def test_the_health_check_fails_without_a_server(self):
        with Running(self, command=self.config["Healthcheck"]["Test"][2:]) as running:
            code, said = running.ended()
        self.assertEqual(code, 1, said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
