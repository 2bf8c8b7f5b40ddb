"""All cases of all recordings, played in parallel."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from . import api, compare, heartbeat, recordings, websocket
from .server import Server

# Cases mostly wait, so that more of them than cores can run.
THREADS = 8


@dataclass
class Result:
    """One played case."""

    name: str
    case: str
    want: dict
    have: dict

    @property
    def key(self):
        return f"{self.name}:{self.case}"

    @property
    def lines(self):
        return compare.difference(self.want, self.have)


def jobs(only_file=None, only_case=None):
    """Functions that each return a list of results."""
    for name in recordings.names():
        if only_file not in (None, name):
            continue
        recording = recordings.load(name)
        if name == "ws-ping":
            yield lambda recording=recording: _ping(recording)
            continue
        if any(isinstance(case, dict) for case in recording["cases"].values()):
            # The requests of a file build on each other: all of them run, whatever is asked for.
            yield lambda name=name, recording=recording: _requests(name, recording)
        settings = recordings.settings(name, recording)
        for case, steps in recording["cases"].items():
            if isinstance(steps, dict) or only_case not in (None, case):
                continue
            if f"{name}:{case}" not in recordings.SKIPPED:
                yield lambda job=(name, case, steps, settings): _socket_case(*job)


def _ping(recording):
    try:
        return [Result("ws-ping", *one) for one in heartbeat.replay(recording)]
    except Exception as error:
        return _broken("ws-ping", recording["cases"], error)


def _requests(name, recording):
    try:
        return [Result(name, *one) for one in api.File(name, recording).replay()]
    except Exception as error:
        requests = [case for case, it in recording["cases"].items() if isinstance(it, dict)]
        return _broken(name, requests, error)


def _socket_case(name, case, steps, settings):
    try:
        return [Result(name, case, *websocket.replay(name, case, steps, settings))]
    except Exception as error:
        return _broken(name, [case], error)


def _broken(name, cases, error):
    """Whatever goes wrong in a replay is a failure of its cases, not of the run."""
    have = {"replay": [f"failed: {error!r}"]}
    return [Result(name, case, {"replay": ["played"]}, have) for case in cases]


def play(only_file=None, only_case=None):
    """Every result that was asked for, in the order of the recordings.

    Raises RuntimeError with the server's log if it does not even start.
    """
    with Server():
        pass
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(job) for job in jobs(only_file, only_case)]
        results = [result for future in futures for result in future.result()]
    return [one for one in results if only_case in (None, one.case)]


def keys():
    """Every case that can be played."""
    return {
        f"{name}:{case}"
        for name in recordings.names()
        for case in recordings.load(name)["cases"]
        if f"{name}:{case}" not in recordings.SKIPPED
    }
