"""Writes the KV events of an engine to the stream that a router reads: bridge.py REDIS_URL STREAM < EVENTS

Standard input stands for the engine: one JSON list of events a line, as docs/event-stream.md describes them.
"""

import json
import sys
import time

import redis


class Bridge:
    def __init__(self, url: str, stream: str):
        self.redis, self.stream, self.seq = redis.Redis.from_url(url), stream, 0
        # What an earlier bridge wrote may have holes: whoever reads on from there must not believe it.
        self.redis.xadd(stream, {"v": 1, "reset": "the bridge was started"})

    def publish(self, events: list[dict]) -> None:
        entry = {"v": 1, "seq": self.seq, "ts": repr(time.time()), "events": json.dumps(events)}
        self.redis.xadd(self.stream, entry)
        self.seq += 1


if __name__ == "__main__":
    bridge = Bridge(*sys.argv[1:])
    for line in sys.stdin:
        bridge.publish(json.loads(line))
