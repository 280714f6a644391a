"""Real peers in network namespaces meet splits, slow and lossy links, restarts and peers that stand still."""
import http.client, threading, time
from world import *

# Before copies of a silent peer are replaced.
GRACE = 20
PINS = 150


def answers_at_once(world, missing, cid):
    """While one peer is silent, every other answers at once and says how old its word about that one is."""
    for peer in world.peers:
        if peer is missing:
            continue
        rows = peer.json("GET", "/pinfold/v1/peers", timeout=AT_ONCE)
        peer.json("GET", f"/pins/{cid}", timeout=AT_ONCE)
        peer.lines("/pins", timeout=AT_ONCE)
        peer.json("GET", "/pinfold/v1/status", timeout=AT_ONCE)
        why = peer.json("GET", f"/pinfold/v1/why/{cid}", timeout=AT_ONCE)
        row = next(row for row in rows if row["name"] == missing.name)
        copy = next(copy for copy in why["peers"] if copy["name"] == missing.name)
        if not row["heard"] or not copy["as_of"]:
            fail(f"{peer.name} does not say how old its word about {missing.name} is: {row} {copy}")


def silent_peers(world, kept):
    missing = world.peers[3]
    cid = next(cid for cid, data in kept.items() if data is not None and missing.name in world.peers[0].statuses().get(cid, []))
    cases = [
        ("stopped", lambda: missing.signal(signal.SIGSTOP), lambda: missing.signal(signal.SIGCONT)),
        ("cut off", lambda: world.split({3}), world.heal),
        ("killed", lambda: missing.end(signal.SIGKILL), missing.again),
    ]
    for words, begin, end in cases:
        begin()
        answers_at_once(world, missing, cid)
        for peer in world.peers[:3]:
            until(f"{peer.name} notices", lambda: peer.health()[missing.name] in ("suspect", "down"))
        answers_at_once(world, missing, cid)
        copy = next(copy for copy in world.peers[0].json("GET", f"/pinfold/v1/why/{cid}")["peers"] if copy["name"] == missing.name)
        if copy["live"] or copy["state"] != "pinned":
            fail(f"a {words} peer is not shown as last known: {copy}")
        end()
        world.meet()
        passed(f"a peer that is {words}: the others answer at once and show it as last known")


def split_in_two(world, kept):
    before = world.agree()
    world.split({0, 1})
    cut = time.monotonic()
    for peer in world.peers:
        until(f"{peer.name} notices", lambda: list(peer.health().values()).count("up") == 2)
    # The grace runs from the last word; a little of it is left for the looks themselves.
    while time.monotonic() - cut < GRACE - 5:
        for peer in world.peers:
            if peer.wishes() != before:
                fail(f"{peer.name} moved something during the grace")
        time.sleep(1)
    passed(f"split 2+2: nothing of {len(before)} pins moved during the grace")
    # Both halves take new pins, and go on past the grace.
    for number, peer in ((0, world.peers[0]), (1, world.peers[2])):
        data = f"written in half {number}".encode() * 100
        kept[peer.add(data)] = data
    time.sleep(10)
    world.heal()
    world.meet()
    world.check(kept)
    passed("split 2+2: healed, every pin of both halves has its copies and its bytes")


def one_way(world, kept):
    world.set_link(0, 3, cut=True)
    for number, peer in enumerate(world.peers[:3]):
        data = f"one way {number}".encode() * 500
        kept[peer.add(data)] = data
    cid = inline("pinned while one way is cut")
    world.peers[0].pin(cid)
    kept[cid] = None
    # What cannot go the straight way reaches everybody by the others.
    until("it reaches the peer behind the cut", lambda: cid in world.peers[3].wishes())
    answers_at_once(world, world.peers[3], cid)
    world.heal()
    world.meet()
    world.check(kept)
    passed("one direction cut: pins arrive by way of the others; healed without loss")


def flapping(world, kept):
    for turn in range(6):
        world.split({0, 1})
        data = f"flap {turn}".encode() * 300
        kept[world.peers[turn % 2].add(data)] = data
        cid = inline(f"flap {turn}")
        world.peers[2 + turn % 2].pin(cid)
        kept[cid] = None
        time.sleep(1.5)
        world.heal()
        time.sleep(1.5)
    world.meet()
    world.check(kept)
    passed("a link that comes and goes: every acknowledged pin is everywhere, with its copies")


def far_apart(world, kept, chance):
    for delay in (0.05, 0.15):
        # One way; the round trips are 100 and 300 ms.
        world.all_links(delay=delay, jitter=delay / 10, loss=0.01, rate=50e6)
        data = noise(chance, 500_000, 600_000)
        cid = world.peers[0].add(data)
        kept[cid] = data
        inlined = inline(f"far {delay}")
        world.peers[1].pin(inlined)
        kept[inlined] = None
        until("both reach the far peer", lambda: {cid, inlined} <= set(world.peers[3].wishes()))
        for peer in world.peers:
            if peer.read(cid, timeout=120) != data:
                fail(f"{peer.name} reads other bytes")
        world.peers[2].lines("/pins")
        until("both have their copies", lambda: len(world.peers[2].statuses()[cid]) >= 2)
        passed(f"{delay * 2000:.0f} ms and 1 % loss: add, pin, status and read complete")
    world.heal()
    world.meet()
    world.check(kept)


def rolling_restart(world, kept):
    acknowledged, is_over, refused = [], threading.Event(), [0]

    def load(start):
        number = start
        while not is_over.is_set():
            up = world.up()
            peer, cid = up[number % len(up)], inline(f"under load {number}")
            number += 4
            try:
                peer.pin(cid, timeout=30)
                acknowledged.append(cid)
            except (OSError, Refused, http.client.HTTPException):
                refused[0] += 1
            time.sleep(0.02)

    loading = [threading.Thread(target=load, args=(start,)) for start in range(4)]
    for thread in loading:
        thread.start()
    for peer in world.peers:
        peer.end()
        peer.again()
        until(f"{peer.name} is among the others again", lambda: list(peer.health().values()).count("up") == world.count)
    is_over.set()
    for thread in loading:
        thread.join()
    if len(acknowledged) < 50:
        fail(f"only {len(acknowledged)} pins were acknowledged under load")
    kept.update((cid, None) for cid in acknowledged)
    world.meet()
    world.check(kept)
    passed(f"rolling restart: {len(acknowledged)} pins acknowledged meanwhile, all kept ({refused[0]} were refused while their peer was down)")


def main():
    chance = random.Random(7)
    kept = {}
    with World(4, f"{GRACE}s") as world:
        files = [noise(chance, 200, 3000) for _ in range(PINS)]
        for cid, data in at_once(world.peers, lambda number, peer: (peer.add(files[number]), files[number]), PINS):
            kept[cid] = data
        world.check(kept)
        passed(f"{PINS} files added on all peers, two copies each")
        silent_peers(world, kept)
        split_in_two(world, kept)
        one_way(world, kept)
        flapping(world, kept)
        far_apart(world, kept, chance)
        rolling_restart(world, kept)
        usage = [f"{peer.name} {rss:.0f} MiB {fds} fds" for peer in world.peers for rss, fds in [peer.usage()]]
        print(f"note: RssAnon and descriptors at the end: {', '.join(usage)}")


main()
