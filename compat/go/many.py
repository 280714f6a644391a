"""Ten thousand pins in a cluster of Go peers and a Pinfold peer: written through either, equal by sorted export on all, a fresh Go peer that knows only
us, all Go peers stopped and started again."""
import base64, concurrent.futures, http.client, json, os, pathlib, signal, threading, time
from among import Go, Pinfold, http as call
from judge import BEGUN, expect, judge, passed, until

OLD = [pathlib.Path(folder) / "ipfs-cluster-service" for folder in os.environ.get("PINFOLD_PEERS_OLD", "").split(":") if folder]
THROUGH_GO, THROUGH_US = 2_000, 8_000
# What the issue asks for.
WITHIN = 90


def cid(number):
    """A CID that holds its content: whoever pins it has it."""
    content = number.to_bytes(4, "big")
    return "b" + base64.b32encode(bytes([1, 0x55, 0, len(content)]) + content).decode().lower().rstrip("=")


def each(method, peer, numbers, query=""):
    """One call for each pin over a few connections."""
    own = threading.local()

    def one(number):
        connection = getattr(own, "connection", None) or http.client.HTTPConnection("127.0.0.1", peer.api, timeout=60)
        own.connection = connection
        connection.request(method, f"/pins/{cid(number)}{query.format(number=number)}")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 202):
            raise SystemExit(f"FAILED: {method} of {cid(number)} through {peer.name}: {answer.status} {body.decode()[:300]}")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, numbers))


def export(peer):
    """Its pinset as sorted lines, without what each peer may see at another time."""
    decoder, text, at, lines = json.JSONDecoder(), call("GET", f"http://127.0.0.1:{peer.api}/allocations?filter=all").decode(), 0, []
    while at < len(text):
        if text[at] in " \n\r\t":
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        lines += value if isinstance(value, list) else [value]
    return sorted(json.dumps(pin, sort_keys=True) for pin in lines)


def agree(what, peers, count):
    begun = time.time()

    def same():
        first, *others = [export(peer) for peer in peers]
        return len(first) == count and all(other == first for other in others)
    until(f"{what}: {count} pins, the same on {', '.join(peer.name for peer in peers)}", same, WITHIN)
    print(f"figure: {what}: all have the same {count} pins after {time.time() - begun:.1f} s", flush=True)


def main():
    gos = [Go(1), *(Go(2 + index, service) for index, service in enumerate(OLD or [Go(9).service]))]
    go1, go2 = gos[0], gos[1]
    for go in gos:
        go.start_kubo()
    ours = Pinfold([go.address for go in gos])
    ours.start()
    trusted = [ours.id, *(go.id for go in gos)]
    for go in gos:
        go.start([other for other in trusted if other != go.id], [ours.address, *(other.address for other in gos if other is not go)])
    for go in gos:
        until(f"{go.name} lists all", lambda: len([row for row in go.ask("peers", "ls") if not row["error"]]) == len(gos) + 1)
    each("POST", go1, range(THROUGH_GO), "?name=go-{number}")
    each("POST", ours, range(THROUGH_GO, THROUGH_GO + THROUGH_US), "?name=ours-{number}")
    passed(f"{THROUGH_GO} pins through Go and {THROUGH_US} through us are accepted")
    count = THROUGH_GO + THROUGH_US
    agree("after a load through both", [*gos, ours], count)
    each("DELETE", ours, range(500))
    each("DELETE", go2, range(count - 500, count))
    agree("after unpins through both", [*gos, ours], count - 1000)

    fresh = Go(9)
    fresh.start_kubo()
    fresh.start(["*"], [ours.address])
    agree("a fresh Go peer that knows us alone", [fresh, ours], count - 1000)
    for go in (*gos, fresh):
        go.process.send_signal(signal.SIGTERM)
    for go in (*gos, fresh):
        go.process.wait(60)
    each("POST", ours, range(count, count + 100), "?name=alone-{number}")
    each("DELETE", ours, range(600, 700))
    expect("with all Go peers stopped pins and unpins go on", len(export(ours)) == count - 1000)
    until("and are held here", lambda: ours.status(cid(count)).get("pinfold") == "pinned")
    for go in gos:
        go.start([other for other in trusted if other != go.id], [ours.address])
    agree("Go peers that come back", [*gos, ours], count - 1000)
    print(f"figure: {time.time() - BEGUN:.0f} s for all checks with {count} pins")


judge(main)
