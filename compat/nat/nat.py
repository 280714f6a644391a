"""Two sites behind NATs and one public machine, in user space: one TUN device in each namespace, this program between them.

usage: nat.py PUBLIC SITE...         namespaces; each has tun0. The public one is 11.0.0.1; the NAT of site number i (from 1) is 11.0.i.1.

A NAT gives every inner address and port one outer port, the same where it is free, whatever the destination (endpoint-independent mapping), and
lets in only what comes from an address and port that was sent to from there (address- and port-dependent filtering): what most home routers do.
With {"symmetric": true} every destination gets another outer port, at random: then nobody can tell another where to send to.

Rules come as JSON lines on standard input: {"delay": 0.075} seconds for every packet, {"symmetric": true} for new mappings. A line is
answered with "ok". {"count": true} is answered with the packets passed between the sites. Ends with its standard input.
"""
import pathlib, random, struct, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from carry import carry

TCP, UDP = 6, 17
PUBLIC = bytes([11, 0, 0, 1])


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def rewritten(packet, source=None, target=None):
    """The packet with another (address, port) on one side."""
    packet = bytearray(packet)
    length = (packet[0] & 15) * 4
    if source:
        packet[12:16], packet[length:length + 2] = source[0], struct.pack("!H", source[1])
    if target:
        packet[16:20], packet[length + 2:length + 4] = target[0], struct.pack("!H", target[1])
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", checksum(bytes(packet[:length])))
    place = length + (16 if packet[9] == TCP else 6)
    packet[place:place + 2] = b"\0\0"
    pseudo = bytes(packet[12:20]) + bytes([0, packet[9]]) + struct.pack("!H", len(packet) - length)
    packet[place:place + 2] = struct.pack("!H", checksum(pseudo + bytes(packet[length:])) or 0xFFFF)
    return bytes(packet)


class Nat:
    def __init__(self, number, chance):
        self.address, self.chance, self.is_symmetric = bytes([11, 0, number, 1]), chance, False
        self.outer, self.inner, self.asked = {}, {}, {}

    def out(self, packet, kind, source, target):
        """What leaves the site, as it looks outside."""
        key = (kind, source, target) if self.is_symmetric else (kind, source)
        if key not in self.outer:
            port = self.chance.randint(20_000, 60_000) if self.is_symmetric else source[1]
            while (kind, port) in self.inner:
                port = self.chance.randint(20_000, 60_000)
            self.outer[key], self.inner[kind, port] = port, source
        port = self.outer[key]
        self.asked.setdefault((kind, port), set()).add(target)
        return rewritten(packet, source=(self.address, port))

    def into(self, packet, kind, source, port):
        """What comes to the NAT, as it is passed inside; None where nobody there asked for it."""
        if source not in self.asked.get((kind, port), ()):
            return None
        return rewritten(packet, target=self.inner[kind, port])


class Net:
    """The public machine is number 0, the sites follow."""

    def __init__(self, sites):
        chance = random.Random(7)
        self.nats = {number: Nat(number, chance) for number in range(1, sites + 1)}
        self.by_address = {nat.address: (number, nat) for number, nat in self.nats.items()}
        self.delay, self.between = 0.0, 0

    def told(self, rule):
        self.delay = rule.get("delay", self.delay)
        for nat in self.nats.values():
            nat.is_symmetric = rule.get("symmetric", nat.is_symmetric)
        return self.between if rule.get("count") else "ok"

    def way(self, number, packet, now):
        # Whole IPv4 packets of TCP and UDP; fragments and the rest do not pass.
        if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP) or struct.unpack("!H", packet[6:8])[0] & 0x3FFF:
            return None
        kind, length = packet[9], (packet[0] & 15) * 4
        ports = struct.unpack("!HH", packet[length:length + 4])
        source, target = (packet[12:16], ports[0]), (packet[16:20], ports[1])
        if number in self.nats:
            packet = self.nats[number].out(packet, kind, source, target)
            source = (self.nats[number].address, struct.unpack("!H", packet[length:length + 2])[0])
        if target[0] == PUBLIC:
            to = 0
        elif target[0] in self.by_address:
            to, nat = self.by_address[target[0]]
            packet = nat.into(packet, kind, source, target[1])
            self.between += bool(packet and number in self.nats)
        else:
            return None
        return (to, now + self.delay, packet) if packet and to != number else None


if __name__ == "__main__":
    net = Net(len(sys.argv) - 2)
    carry(sys.argv[1:], net.told, net.way)
