"""Pusher's server SDK for Python as the publisher, a plain WebSocket as the witness."""

import sys
import unittest
from pathlib import Path

import pusher
from pusher.errors import PusherBadAuth, PusherBadStatus

sys.path.insert(0, str(Path(__file__).parent / "support"))
from resound import APP_ID, KEY, SECRET, Server, Subscriber


class PublishTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "exit status after SIGTERM"

    def sdk(self, app_id=APP_ID, secret=SECRET):
        return pusher.Pusher(app_id, KEY, secret, ssl=False, host="127.0.0.1", port=self.server.port)

    def subscriber(self, *channels):
        subscriber = Subscriber(self.server.port, *channels)
        self.addCleanup(subscriber.close)
        return subscriber

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

    def test_a_wrong_secret_is_refused_with_401(self):
        with self.assertRaisesRegex(PusherBadAuth, r"^Authentication signature invalid\."):
            self.sdk(secret="wrong").trigger("chat.1", "message.sent", {})

    def test_an_unknown_application_is_refused_with_404(self):
        with self.assertRaisesRegex(PusherBadStatus, r"^404: No matching application for ID \[654321\]\.$"):
            self.sdk(app_id="654321").trigger("chat.1", "message.sent", {})


if __name__ == "__main__":
    unittest.main()
