"""Relays the KV events of a vLLM or SGLang engine as they are: relay.py ENDPOINT REDIS_URL STREAM

ENDPOINT is where the engine publishes, e.g. tcp://10.0.0.5:5557. Ends with an error when Redis cannot be written to: run
it where it is started again.
"""

import sys

import redis
import zmq

endpoint, url, stream = sys.argv[1:]
server = redis.Redis.from_url(url)
engine = zmq.Context().socket(zmq.SUB)
engine.setsockopt(zmq.SUBSCRIBE, b"")
engine.setsockopt(zmq.RCVHWM, 0)
lost = engine.get_monitor_socket(zmq.EVENT_DISCONNECTED)
engine.connect(endpoint)

poller = zmq.Poller()
poller.register(engine, zmq.POLLIN)
poller.register(lost, zmq.POLLIN)
server.xadd(stream, {"v": 1, "reset": "the relay was started"})
while True:
    ready = dict(poller.poll())
    if engine in ready:
        *_, seq, payload = engine.recv_multipart()
        server.xadd(stream, {"v": 1, "seq": int.from_bytes(seq, "big"), "payload": payload})
    elif lost in ready:
        # The process that comes back may be another one, and what was published meanwhile is missing.
        lost.recv_multipart()
        server.xadd(stream, {"v": 1, "reset": "the engine was lost"})
