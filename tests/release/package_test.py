"""The package for Debian, in a Debian that runs systemd: installed, started, reloaded, upgraded,
removed and purged, and all that can go wrong with it.

The tests are one story and run in the order of their names; each leaves the service as the next
one expects it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from machine import PROJECT, Machine, eventually

DIST = Path(os.environ.get("RESOUND_DIST", PROJECT / "dist"))
SETTINGS = "/etc/resound/resound.toml"
CONFFILE = "f14fd216d07aa084fcc15de6ba1aa469f8a7eddb41af5b44da358189fb5052a4"
APP = """[[apps]]
id = "my-app-id"
key = "my-app-key"
secret = "a-secret-of-its-own"
"""


class Client:
    """`client.py`, in the machine's network."""

    def __init__(self, machine, port):
        command = machine.inside(sys.executable, "-B", Path(__file__).with_name("client.py"), str(port))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, line):
        told = self.process.stdout.readline().strip()
        if told != line:
            raise AssertionError(f"{told!r} instead of {line!r}")

    def expect_alive(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.expect("alive")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def package():
    (found,) = DIST.glob("*.deb")
    return found


class Story(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.machine = Machine()
        cls.addClassCleanup(cls.machine.end)
        cls.machine.boot()
        cls.scratch = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        # The machine's user is root already.
        cls.machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n')
        os.chmod(cls.machine.path("/usr/local/bin/sudo"), 0o755)
        cls.before = cls.files()

    @classmethod
    def files(cls):
        """All files of the machine but those that change by themselves."""
        listed = cls.machine.shell(
            "find / -xdev ( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log"
            " -o -path /var/cache -o -path /dev -o -path /var/tmp -o -path /var/lib/apt ) -prune -o -print".replace("(", r"\(").replace(")", r"\)")
        )
        return set(listed.stdout.splitlines())

    def changed(self, name, change):
        """The package with something changed in it: `change` gets the folder it is unpacked in."""
        folder = self.scratch / name
        subprocess.run(["dpkg-deb", "-R", package(), folder], check=True)
        change(folder)
        built = self.scratch / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--build", "--root-owner-group", folder, built], check=True, capture_output=True)
        return built

    def of_version(self, version):
        def change(folder):
            control = folder / "DEBIAN/control"
            control.write_text(re.sub("(?m)^Version: .*$", f"Version: {version}", control.read_text()))

        return self.changed(version, change)

    def as_the_manual_says(self, page, text, folder="/srv"):
        """Runs the block of shell commands in which a text is."""
        blocks = re.findall("```sh\n(.*?)```", (PROJECT / page).read_text(), re.S)
        (block,) = [block for block in blocks if text in block]
        return self.machine.shell(f"set -e; cd {folder}; {block}")

    def install(self, deb, check=True):
        self.machine.copy(deb, "/var/tmp/resound.deb")
        return self.machine.run("dpkg", "--install", "/var/tmp/resound.deb", check=check)

    def state(self, of="ActiveState"):
        return self.machine.run("systemctl", "show", f"--property={of}", "--value", "resound").stdout.strip()

    def process(self):
        return int(self.state("MainPID"))

    def log(self):
        return self.machine.run("journalctl", "--unit=resound", "--output=cat", "--no-pager").stdout

    def status(self, *flags):
        told = self.machine.run("resound", "status", "--control-socket", "/run/resound/control.sock", "--json", *flags)
        return json.loads(told.stdout)

    def test_01_the_unit_is_right_and_closed(self):
        self.machine.copy(PROJECT / "config/systemd/resound.service", "/etc/systemd/system/r.service")
        self.machine.copy("/bin/true", "/usr/bin/resound")
        os.chmod(self.machine.path("/usr/bin/resound"), 0o755)
        verified = self.machine.run("systemd-analyze", "verify", "r.service")
        self.assertEqual(verified.stdout + verified.stderr, "")
        secure = self.machine.run(
            "systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", "/etc/systemd/system/r.service"
        )
        self.assertEqual(secure.stderr, "")
        print("\n" + secure.stdout.splitlines()[-1].strip(), file=sys.stderr)
        self.machine.run("rm", "/etc/systemd/system/r.service", "/usr/bin/resound")

    def test_02_packages_that_do_not_fit_are_refused(self):
        def other_architecture(folder):
            control = folder / "DEBIAN/control"
            control.write_text(control.read_text().replace("Architecture: amd64", "Architecture: riscv64"))

        done = self.install(self.changed("riscv64", other_architecture), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("does not match system", done.stderr)

        def newer_libc(folder):
            control = folder / "DEBIAN/control"
            control.write_text(control.read_text().replace("libc6 (>= 2.28)", "libc6 (>= 2.99)"))

        done = self.install(self.changed("libc", newer_libc), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("resound depends on libc6 (>= 2.99)", done.stderr)
        self.machine.run("dpkg", "--purge", "resound")

    def test_03_without_an_application_it_is_installed_and_says_what_to_do(self):
        self.machine.copy(package(), f"/srv/{package().name}")
        done = self.as_the_manual_says("README.md", "sudo apt install")
        self.machine.path(f"/srv/{package().name}").unlink()
        self.assertIn("installed and not started yet", done.stdout)
        self.assertIn("systemctl start resound", done.stdout)
        self.assertRegex(done.stdout, r"app")
        self.assertEqual(self.state(), "inactive")
        self.assertEqual(self.machine.run("systemctl", "is-enabled", "resound").stdout.strip(), "enabled")
        owner = self.machine.run("stat", "--format=%U:%G %a", SETTINGS).stdout.strip()
        self.assertEqual(owner, "root:resound 640")
        user = self.machine.run("getent", "passwd", "resound").stdout
        self.assertRegex(user, r":/nonexistent:/usr/sbin/nologin$")
        for file in ["man/man1/resound.1.gz", "man/man1/resound-start.1.gz", "doc/resound/copyright",
                     "doc/resound/resound.cdx.json", "bash-completion/completions/resound",
                     "zsh/vendor-completions/_resound", "fish/vendor_completions.d/resound.fish"]:
            self.assertTrue(self.machine.path("/usr/share/" + file).is_file(), file)
        completed = ". /usr/share/bash-completion/completions/resound; COMP_WORDS=(resound rel) COMP_CWORD=1; _resound resound rel; echo $COMPREPLY"
        self.assertEqual(self.machine.run("bash", "-c", completed).stdout.strip(), "reload")
        self.assertRegex(self.machine.run("resound", "--version").stdout, r"^resound \S+ \([0-9a-f]{9}(-dirty)? \d{4}-\d\d-\d\d\)$")

    def test_04_with_an_application_it_starts_and_serves(self):
        # A start without one fails once, and is not tried for ever.
        self.assertNotEqual(self.machine.run("systemctl", "start", "resound", check=False).returncode, 0)
        self.assertEqual(self.state("ExecMainStatus"), "64")
        self.assertEqual(self.state("NRestarts"), "0")
        self.write_settings(APP)
        told = self.as_the_manual_says("docs/deploy/systemd.md", "sudo systemctl start")
        self.assertIn("active (running)", told.stdout)
        self.assertEqual(self.state(), "active")
        self.assertIn("connections", self.state("StatusText"))
        self.assertEqual(self.state("Type"), "notify")
        # A container may not have more than the machine it is in.
        most = min(200000, int(self.machine.shell("ulimit -Hn").stdout))
        limits = self.machine.run("cat", f"/proc/{self.process()}/limits").stdout
        self.assertRegex(limits, rf"Max open files +{most} +{most} ")
        self.assertEqual(self.state("LimitNOFILE"), "200000")
        self.assertRegex(self.machine.run("cat", f"/proc/{self.process()}/status").stdout, r"NoNewPrivs:\s+1")
        self.machine.run("resound", "health", "--port", "8080")
        with self.client() as client:
            client.expect_alive()
            self.assertEqual(self.status()["connections"], 1)
        # What it is kept from seeing is not missing where it is shown.
        metrics = self.ask("http://127.0.0.1:9601/metrics")
        for name in ["process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds", "process_max_fds"]:
            self.assertIsNotNone(re.search(rf"(?m)^{name} [1-9]", metrics), name)

    def client(self, port=8080):
        return Client(self.machine, port)

    def write_settings(self, apps):
        self.machine.write(SETTINGS, (PROJECT / "packages/debian/resound.toml").read_text() + "\n" + apps)

    def ask(self, url):
        code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
        done = subprocess.run(
            self.machine.inside(sys.executable, "-c", code, url), capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    def test_05_a_reload_waits_and_fails_if_it_is_refused(self):
        process = self.process()
        self.write_settings(APP + '[[apps]]\nid = "second"\nkey = "second-key"\nsecret = "another-secret"\n')
        self.machine.run("systemctl", "reload", "resound")
        self.assertIn("second", self.log())
        self.write_settings("[[apps]]\nid = 7\n")
        refused = self.machine.run("systemctl", "reload", "resound", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("apps.key is missing", self.log().split("second")[-1])
        self.assertEqual((self.state(), self.process()), ("active", process))
        self.write_settings(APP)
        self.machine.run("systemctl", "reload", "resound")

    def test_06_what_is_killed_comes_back(self):
        process = self.process()
        self.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "resound")
        eventually("it is started anew", lambda: self.process() not in (0, process) and self.state() == "active")

    def test_07_what_does_not_turn_is_started_anew_by_the_watchdog(self):
        self.machine.write("/etc/systemd/system/resound.service.d/short.conf", "[Service]\nWatchdogSec=1\n")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "resound")
        process = self.process()
        self.machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "resound")
        eventually("it is started anew", lambda: self.process() not in (0, process) and self.state() == "active")
        self.assertIn("Watchdog timeout", self.log())
        self.forget_drop_ins()

    def test_08_sockets_of_systemds_refuse_nobody_while_it_is_restarted(self):
        manual = (PROJECT / "docs/operate.md").read_text()
        unit = re.search(r"```ini\n# resound.socket\n(.*?)```", manual, re.S)[1]
        self.machine.write("/etc/systemd/system/resound.socket", unit)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "stop", "resound")
        self.machine.run("systemctl", "start", "resound.socket")
        # Nobody listens but systemd; the first client starts the service.
        self.assertEqual(self.state(), "inactive")
        with self.client(80) as client:
            process = self.process()
            self.machine.run("systemctl", "restart", "resound")
            # It drains, since connections that come meanwhile wait for its successor.
            client.expect("closed 4200")
            self.assertNotEqual(self.process(), process)
        with self.client(80) as client:
            client.expect_alive()
        self.machine.run("systemctl", "stop", "resound.socket", "resound")
        self.machine.run("rm", "/etc/systemd/system/resound.socket")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "start", "resound")

    def forget_drop_ins(self):
        self.machine.run("rm", "-r", "/etc/systemd/system/resound.service.d")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "resound")

    def test_09_an_upgrade_restarts_it_and_says_so(self):
        self.install(self.of_version("0.0.9"))
        process = self.process()
        with self.client() as client:
            done = self.install(package())
            client.expect("closed 1001")
        self.assertRegex(done.stdout, r"resound: restarting resound 0\.1\.0 \([0-9a-f]{9}")
        self.assertRegex(done.stdout, r"resound: restarted: resound 0\.1\.0 \([0-9a-f]{9}")
        self.assertNotEqual(self.process(), process)
        self.assertEqual(self.state(), "active")

    def test_10_an_upgrade_with_broken_settings_leaves_the_old_process_alone(self):
        process = self.process()
        self.write_settings("nonsense = 1\n" + APP)
        with self.client() as client:
            done = self.install(self.of_version("0.2.0"))
            self.assertIn("NOT restarted", done.stdout)
            self.assertIn("nonsense", done.stdout)
            self.assertRegex(done.stdout, r"resound 0\.1\.0 \(.*\) goes on")
            self.assertEqual((self.state(), self.process()), ("active", process))
            client.expect_alive()
        self.write_settings(APP)
        self.machine.run("systemctl", "restart", "resound")
        self.assertNotEqual(self.process(), process)

    def test_11_no_upgrade_asks_about_the_settings(self):
        """What is shipped never changes; a line more would have dpkg ask whoever has edited it."""
        shipped = (PROJECT / "packages/debian/resound.toml").read_bytes()
        self.assertEqual(hashlib.sha256(shipped).hexdigest(), CONFFILE)

        def other_reference(folder):
            control = folder / "DEBIAN/control"
            control.write_text(re.sub("(?m)^Version: .*$", "Version: 0.2.1", control.read_text()))
            with open(folder / "usr/share/doc/resound/config/resound.toml", "a") as reference:
                reference.write("# One setting more.\n")

        self.assertIn("restarted", self.install(self.changed("reference", other_reference)).stdout)

    def refuse_upgrade(self, version, reason):
        process = self.process()
        done = self.install(self.of_version(version))
        self.assertIn("NOT restarted", done.stdout)
        self.assertIn(reason, done.stdout)
        self.assertEqual((self.state(), self.process()), ("active", process))

    def test_12_the_check_is_of_the_service_as_it_would_be_started_now(self):
        drop_in = "/etc/systemd/system/resound.service.d/more.conf"
        self.machine.write("/etc/resound/environment", "RESOUND_DEBUG=false\n")
        self.machine.write(drop_in, "[Service]\nEnvironmentFile=/etc/resound/environment\n")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "resound")
        self.machine.write("/etc/resound/environment", "REVERB_SERVER_PORT=many\n")
        self.refuse_upgrade("0.2.2", "REVERB_SERVER_PORT")
        # A process that was refused once is still the old one at the second time.
        self.refuse_upgrade("0.2.3", "0.1.0 (")
        self.machine.write("/etc/resound/environment", "")
        self.machine.run("chown", "root:root", SETTINGS)
        self.refuse_upgrade("0.2.4", "ermission denied")
        self.machine.run("chown", "root:resound", SETTINGS)
        # The command over several lines, and without its name; settings as a credential.
        lines = ["[Service]", "ExecStart=", "ExecStart=/usr/bin/resound \\", "    --config %d/settings"]
        lines += [f"LoadCredential=settings:{SETTINGS}", ""]
        self.machine.write(drop_in, "\n".join(lines))
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "resound")
        self.write_settings("[[apps]]\nid = 7\n")
        self.refuse_upgrade("0.2.5", "apps.key is missing")
        self.write_settings(APP)
        self.assertIn("restarted", self.install(self.of_version("0.2.6")).stdout)
        self.machine.run("rm", "/etc/resound/environment")
        self.forget_drop_ins()
        self.assertEqual(self.machine.run("ls", "/run/systemd/system").stdout.count("resound-check"), 0)

    def test_13_a_service_that_does_not_come_back_is_told(self):
        """Nothing is wrong with the settings, and somebody else has the port."""
        self.write_settings("[server]\nport = 9999\n\n" + APP)
        code = "import socket, sys; s = socket.create_server(('0.0.0.0', 9999)); print(flush=True); sys.stdin.read()"
        command = self.machine.inside(sys.executable, "-c", code)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
            taker.stdout.readline()
            self.assertIn("the service is DOWN", self.install(self.of_version("0.2.7")).stdout)
            # It is tried on and on, more often than systemd would by itself.
            eventually("it was tried six times", lambda: int(self.state("NRestarts")) >= 6)
            taker.stdin.close()
        eventually("it is there again", lambda: self.state() == "active")
        self.write_settings(APP)
        self.machine.run("systemctl", "restart", "resound")

    def test_14_a_policy_against_restarts_is_kept(self):
        policy = "/usr/sbin/policy-rc.d"
        self.machine.write(policy, "#!/bin/sh\nexit 101\n")
        os.chmod(self.machine.path(policy), 0o755)
        process = self.process()
        self.assertIn("as this system's policy is", self.install(self.of_version("0.2.8")).stdout)
        self.assertEqual(self.process(), process)
        self.machine.run("rm", policy)

    def test_15_an_administrators_own_permissions_stay(self):
        self.machine.run("chown", "root:adm", SETTINGS)
        self.machine.run("chmod", "644", SETTINGS)
        self.install(self.of_version("0.2.9"))
        self.assertEqual(self.machine.run("stat", "--format=%U:%G %a", SETTINGS).stdout.strip(), "root:adm 644")
        self.machine.run("chown", "root:resound", SETTINGS)
        self.machine.run("chmod", "640", SETTINGS)

    def test_16_the_check_before_a_restart_is_that_of_the_services_own_flags(self):
        """As docs/deploy/systemd.md has it: the .env of a Laravel project, and its user."""
        environment = "REVERB_APP_ID=my-app-id\nREVERB_APP_KEY=my-app-key\nREVERB_APP_SECRET=a-secret-of-its-own\n"
        self.machine.write("/var/www/app/.env", environment)
        self.machine.run("chown", "-R", "www-data:www-data", "/var/www/app")
        self.machine.run("chmod", "600", "/var/www/app/.env")
        page = (PROJECT / "docs/deploy/systemd.md").read_text()
        drop_in = re.search(r"```ini\n(# /etc/systemd/system/resound.service.d/laravel.conf\n.*?)```", page, re.S)[1]
        self.machine.write("/etc/systemd/system/resound.service.d/laravel.conf", drop_in)
        self.machine.write(SETTINGS, "broken and not used\n")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "resound")
        done = self.install(self.of_version("0.3.0"))
        self.assertIn("restarted", done.stdout)
        self.machine.write("/var/www/app/.env", environment + "REVERB_SERVER_PORT=many\n")
        process = self.process()
        done = self.install(self.of_version("0.4.0"))
        self.assertIn("NOT restarted", done.stdout)
        self.assertIn("REVERB_SERVER_PORT", done.stdout)
        self.assertEqual(self.process(), process)
        refused = self.machine.run("systemctl", "reload", "resound", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.machine.run("rm", "-r", "/var/www", "/etc/systemd/system/resound.service.d")
        self.machine.run("systemctl", "daemon-reload")
        self.write_settings(APP)
        self.machine.run("systemctl", "restart", "resound")

    def test_17_a_full_disk_during_an_upgrade_loses_nothing(self):
        process = self.process()
        deb = self.machine.copy(self.of_version("0.5.0"), "/var/tmp/full.deb")
        full = "mount -t tmpfs -o size=2m tmpfs /usr/share/doc/resound && cp -r /etc/hostname /usr/share/doc/resound/"
        self.machine.shell(full)
        self.machine.shell("head -c 1900000 /dev/zero > /usr/share/doc/resound/filler")
        done = self.machine.run("dpkg", "--install", deb, check=False)
        self.machine.run("umount", "/usr/share/doc/resound")
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn("No space left on device", done.stderr)
        self.assertEqual((self.state(), self.process()), ("active", process))
        self.assertEqual(self.machine.run("dpkg-query", "-W", "-f=${Version}", "resound").stdout, "0.4.0")
        self.machine.run("resound", "--version")
        self.machine.run("dpkg", "--install", deb)
        self.assertNotEqual(self.process(), process)

    def test_18_what_is_stopped_stays_so(self):
        self.machine.run("systemctl", "stop", "resound")
        self.assertIn("not running, and left so", self.install(self.of_version("0.6.0")).stdout)
        self.assertEqual(self.state(), "inactive")
        self.machine.run("systemctl", "start", "resound")

    def test_19_it_is_removed_and_purged(self):
        process = self.process()
        self.machine.run("dpkg", "--remove", "resound")
        self.assertEqual(self.state(), "inactive")
        self.assertNotEqual(self.machine.run("test", "-d", f"/proc/{process}", check=False).returncode, 0)
        self.assertTrue(self.machine.path(SETTINGS).is_file())
        self.assertFalse(self.machine.path("/usr/bin/resound").exists())
        # Installed again, it finds its settings.
        self.assertIn("resound: started", self.install(package()).stdout)
        self.machine.run("dpkg", "--purge", "resound")
        left = {path for path in self.files() - self.before if not path.startswith("/var/lib/dpkg")}
        self.assertEqual(left, set())

    def test_20_without_the_package_the_tar_does_the_same(self):
        for file in [*DIST.glob("*.tar.gz"), DIST / "SHA256SUMS"]:
            self.machine.copy(file, f"/srv/{file.name}")
        done = self.as_the_manual_says("README.md", "sudo tar")
        self.assertIn("tar.gz: OK", done.stdout)
        # As on a machine that never had the package.
        self.machine.run("userdel", "resound")
        self.as_the_manual_says("docs/deploy/systemd.md", "sudo useradd")
        self.write_settings(APP)
        self.machine.run("systemctl", "start", "resound")
        with self.client() as client:
            client.expect_alive()
            self.machine.run("systemctl", "reload", "resound")
            self.machine.run("systemctl", "stop", "resound")
            client.expect("closed 1001")
        binary = self.machine.run("readlink", "--canonicalize", "/usr/local/bin/resound").stdout.strip()
        self.assertEqual(self.machine.run("which", "resound").stdout.strip(), binary)
        listed = self.machine.run("tar", "-tzvf", f"/srv/{next(DIST.glob('*.tar.gz')).name}").stdout
        for line in listed.splitlines():
            self.assertRegex(line, r"^(-rw-r--r--|-rwxr-xr-x) 0/0 ")

    def test_21_a_sum_that_is_wrong_is_noticed(self):
        file = self.machine.path(f"/srv/{next(DIST.glob('*.tar.gz')).name}")
        with open(file, "r+b") as opened:
            opened.seek(1000)
            opened.write(b"x")
        block = "cd /srv; sha256sum --check --ignore-missing SHA256SUMS"
        done = self.machine.shell(block, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("FAILED", done.stdout)


if __name__ == "__main__":
    unittest.main(failfast=True, verbosity=2)
