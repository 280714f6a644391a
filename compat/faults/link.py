"""A lossy network between namespaces, in user space: one TUN device in each, this program between them. Kernels without netem have no other.

usage: link.py NAMESPACE...          namespace number i (from 1) gets tun0 with the address 10.77.0.i

Rules come as JSON lines on standard input and hold for packets from one namespace to another, numbers from 0, from then on:
  {"from": 0, "to": 1, "cut": true}                       nothing arrives
  {"from": 0, "to": 1, "delay": 0.1, "jitter": 0.02, "loss": 0.01, "rate": 1e7}    seconds, seconds, share, bits a second
Each rule replaces the one before; {"from": 0, "to": 1} is a perfect link. A line is answered with "ok". Ends with its standard input.
"""
import random, sys
from carry import carry

# A link with a rate drops what would wait longer.
QUEUE_MOST = 0.5


class Links:
    def __init__(self, count):
        self.count, self.chance = count, random.Random(1)
        self.rules, self.free = {}, {}

    def told(self, rule):
        self.rules[rule.pop("from"), rule.pop("to")] = rule
        return "ok"

    def way(self, source, packet, now):
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[16:19] != b"\x0a\x4d\x00":
            return None
        target, due = packet[19] - 1, now
        if not 0 <= target < self.count:
            return None
        rule = self.rules.get((source, target), {})
        if rule.get("cut") or self.chance.random() < rule.get("loss", 0):
            return None
        if rule.get("rate"):
            begins = max(now, self.free.get((source, target), 0))
            if begins - now > QUEUE_MOST:
                return None
            due = self.free[source, target] = begins + len(packet) * 8 / rule["rate"]
        return target, due + rule.get("delay", 0) + self.chance.uniform(0, rule.get("jitter", 0)), packet


if __name__ == "__main__":
    links = Links(len(sys.argv) - 1)
    carry(sys.argv[1:], links.told, links.way)
