"""Alerts of all agents on a broker, each once. All it needs is paho-mqtt 2.

    python subscriber.py --host broker.plant --client-id mes-7

Put your own work into `handle`. An agent sends at least once: after a lost connection a message may
come again, and (agent, boot_id, seq) tells.
"""

import argparse
import json
from collections import OrderedDict

import paho.mqtt.client as mqtt

KEPT = 100_000


class Seen:
    """Remembers the last KEPT messages; put it into your database if yours must outlive you."""

    def __init__(self):
        self._keys = OrderedDict()

    def before(self, data):
        key = (data["agent"], data["boot_id"], data["seq"])
        if key in self._keys:
            return True
        self._keys[key] = None
        if len(self._keys) > KEPT:
            self._keys.popitem(last=False)
        return False


def handle(event):
    data = event["data"]
    late = " (replayed)" if data["replayed"] else ""
    where = (
        f"{event['time']} {data['site']}/{data['line']}/{data['agent']} frame {data['frame_id']}"
    )
    if event["type"] == "linegate.gap.v1":
        print(f"{where}{late}: NOT INSPECTED, {data['reason']}: {data['detail']}", flush=True)
        return
    for defect in data["defects"]:
        print(f"{where}{late}: {defect['class_name']} {defect['confidence']:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--root", default="linegate", help="first topic level")
    parser.add_argument("--client-id", default="linegate-example", help="one for each subscriber")
    args = parser.parse_args()
    seen = Seen()

    def on_connect(client, userdata, flags, reason_code, properties):
        # At every connection: a broker that lost its sessions has lost this too.
        client.subscribe([(f"{args.root}/+/+/+/{kind}", 1) for kind in ("event", "gap")])

    def on_message(client, userdata, message):
        # paho acknowledges when this returns. An exception here would end its loop for good.
        try:
            event = json.loads(message.payload)
            if not seen.before(event["data"]):
                handle(event)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            print(f"not understood: {message.topic}: {error!r}", flush=True)

    # A session that is kept: what is said while we are away waits on the broker.
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=args.client_id, clean_session=False
    )
    client.on_connect, client.on_message = on_connect, on_message
    client.reconnect_delay_set(min_delay=1, max_delay=30)
    client.connect_async(args.host, args.port, keepalive=30)
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
