"""Packets between TUN devices, one in each of some namespaces: the loop of link.py and nat.py, which say where a packet goes and when.

Rules come as JSON lines on standard input; each is answered with a line. It ends with its standard input.
"""
import ctypes, fcntl, heapq, json, os, select, struct, sys, time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
# Packets under way in all; more are dropped, as a router would.
UNDER_WAY_MOST = 20_000
# Packets taken from one device before the others have their turn.
TURN = 64

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


def packets_of(fd):
    for _ in range(TURN):
        try:
            yield os.read(fd, 65536)
        except BlockingIOError:
            return


def give(fd, packet):
    try:
        os.write(fd, packet)
    except OSError:
        pass  # a full or downed device drops, too


def carry(namespaces, told, way):
    """Carries packets until standard input ends. `told` takes a rule and gives the answer to it. `way` takes the number (from 0) of the namespace that a
    packet left, the packet and the time, and says to which number it goes, when, and how it looks there; or None: it is lost."""
    fds = [tun(namespace) for namespace in namespaces]
    numbers = {fd: number for number, fd in enumerate(fds)}
    under_way, count, pending = [], 0, b""
    poll = select.epoll()
    for fd in [*fds, 0]:
        poll.register(fd, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else -1
        for fd, _ in poll.poll(wait):
            if fd == 0:
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    print(told(json.loads(line)), flush=True)
                continue
            for packet in packets_of(fd):
                if len(under_way) >= UNDER_WAY_MOST:
                    continue
                found = way(numbers[fd], packet, time.monotonic())
                if found:
                    to, due, packet = found
                    count += 1
                    heapq.heappush(under_way, (due, count, fds[to], packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, fd, packet = heapq.heappop(under_way)
            give(fd, packet)
