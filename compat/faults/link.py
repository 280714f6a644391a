"""A lossy network between namespaces, in user space: one TUN device in each, this program between them. Kernels without netem have no other.

usage: link.py NAMESPACE...          namespace number i (from 1) gets tun0 with the address 10.77.0.i

Rules come as JSON lines on standard input and hold for packets from one namespace to another, numbers from 0, from then on:
  {"from": 0, "to": 1, "cut": true}                       nothing arrives
  {"from": 0, "to": 1, "delay": 0.1, "jitter": 0.02, "loss": 0.01, "rate": 1e7}    seconds, seconds, share, bits a second
Each rule replaces the one before; {"from": 0, "to": 1} is a perfect link. A line is answered with "ok". Ends with its standard input.
"""
import ctypes, fcntl, heapq, json, os, random, select, struct, sys, time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
# Packets under way on all links; more are dropped, as a router would.
UNDER_WAY_MOST = 20_000
# A link with a rate drops what would wait longer.
QUEUE_MOST = 0.5

libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    """Moves this thread into a network namespace."""
    fd = os.open(path, os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"entering {path}")
    os.close(fd)


def tun(namespace):
    enter(f"/var/run/netns/{namespace}")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN_NO_PI))
    return fd


def main():
    chance = random.Random(1)
    fds = [tun(namespace) for namespace in sys.argv[1:]]
    place = {fd: number for number, fd in enumerate(fds)}
    rules, free, under_way, count = {}, {}, [], 0
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
                    rules[rule.pop("from"), rule.pop("to")] = rule
                    print("ok", flush=True)
                continue
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                if len(packet) < 20 or packet[0] >> 4 != 4 or packet[16:19] != b"\x0a\x4d\x00":
                    continue
                source, target = place[fd], packet[19] - 1
                if not 0 <= target < len(fds):
                    continue
                rule = rules.get((source, target), {})
                if rule.get("cut") or chance.random() < rule.get("loss", 0) or len(under_way) >= UNDER_WAY_MOST:
                    continue
                due = time.monotonic()
                if rule.get("rate"):
                    begins = max(due, free.get((source, target), 0))
                    if begins - due > QUEUE_MOST:
                        continue
                    due = free[source, target] = begins + len(packet) * 8 / rule["rate"]
                due += rule.get("delay", 0) + chance.uniform(0, rule.get("jitter", 0))
                count += 1
                heapq.heappush(under_way, (due, count, fds[target], packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, fd, packet = heapq.heappop(under_way)
            try:
                os.write(fd, packet)
            except (BlockingIOError, OSError):
                pass  # a full or downed device drops, too


if __name__ == "__main__":
    main()
