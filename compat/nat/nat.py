"""Two sites behind NATs and one public machine, in user space: one TUN device in each namespace, this program between them.

usage: nat.py PUBLIC SITE...         namespaces; each has tun0. The public one is 11.0.0.1; the NAT of site number i (from 1) is 11.0.i.1.

A NAT gives every inner address and port one outer port, the same where it is free, whatever the destination (endpoint-independent mapping), and
lets in only what comes from an address and port that was sent to from there (address- and port-dependent filtering): what most home routers do.
With {"symmetric": true} every destination gets another outer port, at random: then nobody can tell another where to send to.

Rules come as JSON lines on standard input: {"delay": 0.075} seconds for every packet, {"symmetric": true} for new mappings. A line is
answered with "ok". {"count": true} is answered with the packets passed between the sites. Ends with its standard input.
"""
import heapq, json, os, pathlib, random, select, struct, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
from link import UNDER_WAY_MOST, tun

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


def main():
    chance = random.Random(7)
    fds = [tun(namespace) for namespace in sys.argv[1:]]
    nats = {fd: Nat(number, chance) for number, fd in enumerate(fds) if number}
    by_address = {nat.address: (fd, nat) for fd, nat in nats.items()}
    under_way, count, delay, between = [], 0, 0.0, 0
    poll = select.epoll()
    for fd in [*fds, 0]:
        poll.register(fd, select.EPOLLIN)
    print("ready", flush=True)
    pending = b""
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else -1
        for fd, _ in poll.poll(wait):
            if fd == 0:
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    rule = json.loads(line)
                    delay = rule.get("delay", delay)
                    for nat in nats.values():
                        nat.is_symmetric = rule.get("symmetric", nat.is_symmetric)
                    print(between if rule.get("count") else "ok", flush=True)
                continue
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                # Whole IPv4 packets of TCP and UDP; fragments and the rest do not pass.
                if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP) or struct.unpack("!H", packet[6:8])[0] & 0x3FFF:
                    continue
                kind, length = packet[9], (packet[0] & 15) * 4
                ports = struct.unpack("!HH", packet[length:length + 4])
                source, target = (packet[12:16], ports[0]), (packet[16:20], ports[1])
                if fd in nats:
                    packet = nats[fd].out(packet, kind, source, target)
                    source = (nats[fd].address, struct.unpack("!H", packet[length:length + 2])[0])
                if target[0] == PUBLIC:
                    to = fds[0]
                elif target[0] in by_address:
                    to, nat = by_address[target[0]]
                    packet = nat.into(packet, kind, source, target[1])
                    between += bool(packet and fd in nats)
                else:
                    continue
                if packet is None or to == fd or len(under_way) >= UNDER_WAY_MOST:
                    continue
                count += 1
                heapq.heappush(under_way, (time.monotonic() + delay, count, to, packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, fd, packet = heapq.heappop(under_way)
            try:
                os.write(fd, packet)
            except (BlockingIOError, OSError):
                pass  # a full or downed device drops, too


if __name__ == "__main__":
    main()
