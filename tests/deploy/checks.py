"""What the checks of manifests share: reading them, faults, and Resound's own opinion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"

faults = []


def fault(text):
    """Notes what is wrong, to be told at the end with the rest."""
    faults.append(text)


def expect(is_so, text):
    if not is_so:
        fault(text)


def stop_if_faulty():
    for text in faults:
        print(f"{sys.argv[0]}: {text}", file=sys.stderr)
    if faults:
        sys.exit(1)


def finish(said):
    stop_if_faulty()
    print(said)


class Strict(yaml.SafeLoader):
    """As PyYAML loads, but a key may stand only once in a mapping."""


def mapping(loader, node):
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in {key for key in keys if keys.count(key) > 1}:
        fault(f"{loader.name}: the key {key!r} stands there twice")
    return loader.construct_mapping(node)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def documents(path):
    with path.open() as file:
        return list(yaml.load_all(file, Strict))


def seconds(text):
    """Of "75s", "1m30s" or a number."""
    total = 0
    number = ""
    for each in str(text):
        if each.isdigit():
            number += each
        else:
            total += int(number) * {"s": 1, "m": 60, "h": 3600}[each]
            number = ""
    return total + int(number or 0)


def drain(settings, scaling):
    """Seconds that Resound takes to end at most, by its defaults (docs/operate.md)."""
    spread = settings.get("RESOUND_DRAIN_SECONDS", "auto")
    grace = float(settings.get("RESOUND_SHUTDOWN_GRACE", 5))
    if spread == "auto":
        return 8.0 if scaling else grace
    pause = float(settings.get("RESOUND_DRAIN_PAUSE", 2)) if float(spread) else 0.0
    return pause + float(spread) + grace


def check_settings(place, settings):
    """Resound takes these settings, and has nothing to warn of."""
    binary = os.environ.get("RESOUND_BIN", ROOT / "target/debug/resound")
    run = subprocess.run(
        [binary, "check", "--json"],
        env=settings,
        capture_output=True,
        text=True,
        # Where no .env lies.
        cwd="/",
        timeout=20,
        check=False,
    )
    try:
        said = json.loads(run.stdout)
    except ValueError:
        fault(f"{place}: resound check says {run.stdout}{run.stderr}")
        return
    expect(said["ok"], f"{place}: resound check refuses it: {said.get('problems')}")
    for warning in said.get("warnings", []):
        fault(f"{place}: resound check warns: {warning}")
