"""Pusher's server SDK for Python as the publisher, a plain WebSocket as the witness."""

import base64
import itertools
import json
import sys
import unittest
from pathlib import Path

import pusher
import pysher
from nacl.secret import SecretBox
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus
from pusher.http import POST, Request

sys.path.insert(0, str(Path(__file__).parent / "support"))
from resound import APP_ID, KEY, LIMIT_S, SECRET, Server, Subscriber

MASTER_KEY = base64.b64encode(b"master key".ljust(32)).decode()


class ClientTest(unittest.TestCase):
    """Pysher, which reads the `data` of an error as an object, as Pusher sends it."""

    def test_an_unknown_key_is_told_by_its_code(self):
        server = Server()
        self.addCleanup(server.stop)
        client = pysher.Pusher(
            "wrong-key",
            secure=False,
            custom_host="127.0.0.1",
            port=server.port,
        )
        with self.assertLogs("pysher.connection", "ERROR") as log:
            client.connect()
            client.connection.join(LIMIT_S)
        self.assertIn("Connection: Received error 4001", [line.getMessage() for line in log.records])


class SdkTest(unittest.TestCase):
    # For names of channels in which nobody of the test before is still.
    numbers = itertools.count()

    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "exit status after SIGTERM"

    def sdk(self, app_id=APP_ID, secret=SECRET):
        return pusher.Pusher(
            app_id,
            KEY,
            secret,
            ssl=False,
            host="127.0.0.1",
            port=self.server.port,
            encryption_master_key_base64=MASTER_KEY,
        )

    def subscriber(self, *channels, user=None):
        subscriber = Subscriber(self.server.port, *channels, sdk=self.sdk(), user=user)
        self.addCleanup(subscriber.close)
        return subscriber

    def populate(self):
        """A presence channel with Ana twice and Bob once, a public one with Bob alone."""
        presence, public = f"presence-{next(self.numbers)}", f"public-{next(self.numbers)}"
        for user in ("ana", "ana"):
            self.subscriber(presence, user=user)
        self.subscriber(presence, public, user="bob")
        return presence, public

    def test_trigger_delivers_name_data_and_channel(self):
        subscriber = self.subscriber("chat.1")
        self.assertEqual(self.sdk().trigger("chat.1", "message.sent", {"content": "Hello"}), {})
        self.assertEqual(subscriber.next(), ("chat.1", "message.sent", {"content": "Hello"}))

    def test_trigger_delivers_to_each_of_several_channels(self):
        subscriber = self.subscriber("chat.1", "chat.2")
        self.sdk().trigger(["chat.1", "chat.2"], "message.sent", {"to": "both"})
        received = sorted(subscriber.next()[0] for _ in range(2))
        self.assertEqual(received, ["chat.1", "chat.2"])

    def test_trigger_batch_delivers_every_event_in_its_order(self):
        subscriber = self.subscriber("chat.1", "chat.2")
        self.sdk().trigger_batch(
            [
                {"channel": "chat.1", "name": "first", "data": {"n": 1}},
                {"channel": "chat.2", "name": "second", "data": {"n": 2}},
            ]
        )
        self.assertEqual(subscriber.next(), ("chat.1", "first", {"n": 1}))
        self.assertEqual(subscriber.next(), ("chat.2", "second", {"n": 2}))

    def test_socket_id_keeps_an_event_from_that_socket(self):
        sender, other = self.subscriber("chat.1"), self.subscriber("chat.1")
        self.sdk().trigger("chat.1", "to others", {}, sender.socket_id)
        self.sdk().trigger("chat.1", "to all", {})
        self.assertEqual([other.next()[1], other.next()[1]], ["to others", "to all"])
        self.assertEqual(sender.next()[1], "to all")

    def test_text_in_any_script_arrives_unchanged(self):
        subscriber = self.subscriber("chat.1")
        content = "Ñandú · 日本語 · שלום · 👩‍👩‍👧 · \u2028 · \"\\/<>&\n"
        self.sdk().trigger("chat.1", "message.sent", {"content": content})
        self.assertEqual(subscriber.next()[2], {"content": content})

    def test_an_encrypted_event_arrives_as_the_sdk_encrypted_it(self):
        channel = "private-encrypted-chat.1"
        subscriber = self.subscriber(channel)
        self.sdk().trigger(channel, "message.sent", {"content": "Hello"})
        self.sdk().trigger_batch([{"channel": channel, "name": "message.sent", "data": {"content": "Hello"}}])
        signed = self.sdk().authenticate(channel, subscriber.socket_id)
        box = SecretBox(base64.b64decode(signed["shared_secret"]))
        for _ in range(2):
            _, event, data = subscriber.next()
            self.assertEqual((event, sorted(data)), ("message.sent", ["ciphertext", "nonce"]))
            plain = box.decrypt(base64.b64decode(data["ciphertext"]), base64.b64decode(data["nonce"]))
            self.assertEqual(json.loads(plain), {"content": "Hello"})

    def test_authenticate_signs_for_presence_channels(self):
        presence, _ = self.populate()
        answer = self.subscriber().subscribe(presence, "carol")["presence"]
        self.assertEqual((answer["count"], sorted(answer["ids"])), (3, ["ana", "bob", "carol"]))
        self.assertEqual(answer["hash"]["carol"], {"name": "carol"})

    # The SDK signs the digest of an empty body with every GET.
    def test_channels_info_lists_those_that_are_occupied(self):
        presence, public = self.populate()
        channels = self.sdk().channels_info()["channels"]
        self.assertEqual((channels[presence], channels[public]), ({}, {}))
        for prefix, attributes, expected in [
            (presence, ["user_count"], {presence: {"user_count": 2}}),
            (public, ["subscription_count"], {public: {"subscription_count": 1}}),
            ("nobody", [], {}),
        ]:
            self.assertEqual(self.sdk().channels_info(prefix, attributes), {"channels": expected})

    def test_channel_info_tells_of_one(self):
        presence, public = self.populate()
        for name, attributes, expected in [
            (public, [], {"occupied": True}),
            (public, ["subscription_count"], {"occupied": True, "subscription_count": 1}),
            (presence, ["user_count", "subscription_count"], {"occupied": True, "user_count": 2}),
            ("nobody", ["subscription_count"], {"occupied": False}),
        ]:
            self.assertEqual(self.sdk().channel_info(name, attributes), expected)

    def test_users_info_tells_each_user_once(self):
        presence, public = self.populate()
        users = self.sdk().users_info(presence)["users"]
        self.assertEqual(sorted(user["id"] for user in users), ["ana", "bob"])
        with self.assertRaises(PusherBadRequest):
            self.sdk().users_info(public)

    def test_send_to_user_reaches_who_signed_in(self):
        ana, bob = self.subscriber(), self.subscriber()
        ana.sign_in("ana")
        bob.sign_in("bob")
        for user in ("ana", "bob"):
            self.assertEqual(self.sdk().send_to_user(user, "message.sent", {"to": user}), {})
        self.assertEqual(ana.next(), ("#server-to-user-ana", "message.sent", {"to": "ana"}))
        self.assertEqual(bob.next(), ("#server-to-user-bob", "message.sent", {"to": "bob"}))

    def test_terminate_connections_ends_those_of_the_user(self):
        ana, bob = self.subscriber(), self.subscriber()
        ana.sign_in("ana")
        bob.sign_in("bob")
        # The SDK's own call asks for a path without /apps/{id}, which Pusher has not either.
        with self.assertRaisesRegex(PusherBadStatus, "^404: "):
            self.sdk().terminate_user_connections("ana")
        client = self.sdk()._pusher_client
        request = Request(client, POST, f"/apps/{APP_ID}/users/ana/terminate_connections", {})
        self.assertEqual(client.http.send_request(request), {})
        self.assertEqual(ana.end(), 4009)
        self.sdk().send_to_user("bob", "message.sent", {})
        self.assertEqual(bob.next()[1], "message.sent")

    def test_a_wrong_secret_is_refused_with_401(self):
        with self.assertRaisesRegex(PusherBadAuth, r"^Authentication signature invalid\."):
            self.sdk(secret="wrong").trigger("chat.1", "message.sent", {})

    def test_an_unknown_application_is_refused_with_404(self):
        with self.assertRaisesRegex(PusherBadStatus, r"^404: No matching application for ID \[654321\]\.$"):
            self.sdk(app_id="654321").trigger("chat.1", "message.sent", {})


if __name__ == "__main__":
    unittest.main()
