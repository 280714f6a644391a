"""A Pinfold peer and Go ipfs-cluster peers (CRDT mode, a Kubo each) as one cluster on loopback; standard library only."""
import signal, subprocess, time
from among import Go, Pinfold, added, everywhere, holders, http, sample
from judge import BEGUN, BIN, RUNNING, expect, judge, passed, until


def is_member(go, ours, count):
    """Whether a Go peer lists us among so many with name and members, without an error."""
    rows = {row["id"]: row for row in go.ask("peers", "ls")}
    mine = rows.get(ours.id)
    return len(rows) >= count and mine and not mine["error"] and mine["peername"] == "pinfold" and len(mine["cluster_peers"]) >= count


def membership(go1, go2, ours):
    for go in (go1, go2):
        until(f"{go.name} lists us", lambda: is_member(go, ours, 3))
    passed("peers ls of both Go peers shows us among three, without an error")
    metrics = {}
    for name in ("ping", "freespace", "tag:group"):
        metrics[name] = until(f"our {name} arrives", lambda: [one for one in go1.ask("health", "metrics", name) if one["peer"] == ours.id])
    expect("our metrics are what Go places by", all(one[0]["valid"] for one in metrics.values()))


def go_writes(go1, go2, ours):
    path = sample("from-go")
    cid = added(go1, path, "--name", "from go")
    until("the pin of a Go peer arrives here", lambda: ours.pins().get(cid, {}).get("name") == "from go")
    passed("a pin written by Go is in our pinset")
    for go in (go1, go2):
        until(f"{go.name} says that all three hold it", lambda: everywhere(go, cid, ["go1", "go2", "pinfold"]))
    passed("status of both Go peers: all three hold it")
    expect("what Go added is read back from our gateway", http("GET", f"{ours.gateway}/ipfs/{cid}") == path.read_bytes())
    return cid


def we_write(go1, go2, ours):
    path = sample("from-us")
    cid = added(ours, path, "--name", "from us")
    for go in (go1, go2):
        until(f"our pin arrives at {go.name}", lambda: go.pins().get(cid, {}).get("name") == "from us")
        until(f"{go.name} says that all three hold it", lambda: everywhere(go, cid, ["go1", "go2", "pinfold"]))
    passed("a pin written by us is held by all three, say both Go peers")
    data = http("POST", f"http://127.0.0.1:{go2.kubo}/api/v0/cat?arg={cid}&offline=true")
    expect("what we added is read back from a Kubo", data == path.read_bytes())
    return cid


def allocations(go1, ours):
    cid = added(go1, sample("on-us"), "--name", "on us", "--rmin", "1", "--rmax", "1", "--allocations", ours.id)
    until("a pin placed on us is held by us", lambda: go1.status(cid) == {"go1": "remote", "go2": "remote", "pinfold": "pinned"})
    expect("Go's allocator takes us", go1.pins()[cid]["allocations"] == [ours.id])
    placed = added(go1, sample("elsewhere"), "--name", "elsewhere", "--rmin", "1", "--rmax", "1", "--allocations", go1.id)
    until("a pin placed elsewhere is remote here", lambda: go1.status(placed) == {"go1": "pinned", "go2": "remote", "pinfold": "remote"})
    expect("its name is not lost by our answer", go1.ask("status", placed)[0]["name"] == "elsewhere")
    return [cid, placed]


def commands(go1, ours, cid):
    (info,) = go1.ask("recover", cid)
    expect("recover through Go asks us", info["peer_map"][ours.id]["status"] == "pinned" and not info["peer_map"][ours.id]["error"])
    listed = {info["cid"]: info["peer_map"].get(ours.id, {}) for info in go1.ask("status", "--filter", "pinned")}
    expect("status of everything through Go has our copies", listed[cid]["status"] == "pinned" and listed[cid]["peername"] == "pinfold")
    collected = {row["peer"]: row for row in go1.ask("ipfs", "gc")[0]["peer_map"].values()}
    expect("garbage collection through Go reaches us", collected[ours.id]["peername"] == "pinfold" and not collected[ours.id].get("error"))
    until("Go hears how many pins we hold",
          lambda: any(one["peer"] == ours.id and int(one["value"]) > 0 for one in go1.ask("health", "metrics", "numpin")))
    graph = go1.ctl("health", "graph", "--all-ipfs-peers")
    expect("the graph that Go draws shows us", "pinfold" in graph)


def our_door(ours, go_cid, our_cid):
    (own,) = ours.ask("id")
    expect("ctl id", own["id"] == ours.id and own["peername"] == "pinfold" and own["ipfs"]["id"])
    members = {row["peername"]: row for row in ours.ask("peers", "ls")}
    expect("ctl peers ls shows the Go peers too", {"go1", "go2", "pinfold"} <= set(members) and members["pinfold"]["id"] == ours.id)
    expect("ctl version", ours.ask("version")[0]["version"])
    expect("ctl pin ls", {go_cid, our_cid} <= set(ours.pins()))
    (pin,) = ours.ask("pin", "ls", our_cid)
    expect("ctl pin ls CID", pin["cid"] == our_cid and pin["name"] == "from us")
    until("ctl status CID asks the Go peers", lambda: everywhere(ours, our_cid, ["go1", "go2", "pinfold"]))
    all_names = ["go1", "go2", "pinfold"]
    until("ctl status of all has the lists of the Go peers", lambda: holders(ours.ask("status"), {go_cid, our_cid}, all_names))
    expect("ctl status of several CIDs", holders(ours.ask("status", go_cid, our_cid), {go_cid, our_cid}, all_names))
    expect("ctl status --filter", go_cid not in {info["cid"] for info in ours.ask("status", "--filter", "error")})
    expect("ctl health metrics ping", any(one["peer"] == ours.id and one["valid"] for one in ours.ask("health", "metrics", "ping")))
    expect("ctl health metrics freespace", any(one["peer"] == ours.id for one in ours.ask("health", "metrics", "freespace")))
    # Go peers tell theirs now and then.
    groups = until("ctl health metrics tag:group has the Go peers",
                   lambda: {one["peer"]: one["value"] for one in ours.ask("health", "metrics", "tag:group") if one["peer"] == members["go1"]["id"]})
    expect("with their values", set(groups.values()) == {"default"})
    expect("ctl health metrics names them all", {"numpin", "pinqueue", "tag:group"} <= set(ours.ask("health", "metrics")))
    (pin,) = ours.ask("pin", "add", "--name", "again", our_cid)
    expect("ctl pin add", pin["cid"] == our_cid)
    expect("ctl recover asks the Go peers", holders(ours.ask("recover", our_cid), {our_cid}, all_names))
    ours.ctl("recover")


def removals(go1, go2, ours, go_cid, our_cid):
    ours.ctl("pin", "rm", go_cid)
    for go in (go1, go2):
        until(f"our removal arrives at {go.name}", lambda: go_cid not in go.pins())
    go2.ctl("pin", "rm", our_cid)
    until("a removal by Go arrives here", lambda: our_cid not in ours.pins())
    passed("removals cross in both directions")


def many(go1, ours):
    """Pins of both sides at once; both end with the same set."""
    roots = [added(peer, sample(f"many-{number}", 2000), "--name", f"many {number}") for number in range(10) for peer in (go1, ours)]
    until("both have the same pins", lambda: set(roots) <= set(go1.pins()) and set(go1.pins()) == set(ours.pins()))
    mine, theirs = ours.pins(), go1.pins()
    same = [cid for cid in theirs if any(mine[cid][key] != theirs[cid][key] for key in ("name", "replication_factor_min", "mode", "metadata"))]
    expect("pins are the same on both sides", not same)


def newcomers(go1, go3, ours):
    """A fresh Go peer that knows us alone gets everything from us; being no trusted peer, its own pins stay its own."""
    go3.start(["*"], [ours.address], has_node=False)
    until("a fresh Go peer that knows only us gets the pinset", lambda: set(go3.pins()) == set(go1.pins()))
    passed("a fresh Go peer took the whole pinset from us")
    before = set(ours.pins())
    go3.ctl("pin", "add", "--no-status", "--name", "of a stranger", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
    until("the stranger has its pin", lambda: set(go3.pins()) - before)
    time.sleep(3)
    expect("pins of a peer that is not trusted are not taken", set(ours.pins()) == before)


def distrusted(go1):
    """A peer alone among Go peers of which none has it in its list."""
    lone = Pinfold([go1.address], "lone")
    lone.start()
    cid = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"

    def refuses():
        asked = lone.tries("pin", "add", cid)
        return asked.returncode != 0 and lone.id in asked.stdout + asked.stderr
    until("a write that nobody would take is refused, with the id to be trusted", refuses)
    listed = subprocess.run([BIN, "peers", "--api", lone.url], capture_output=True, text=True, timeout=60).stdout
    expect("pinfold peers says who does not trust it", f"go1 does not take what this peer writes: put {lone.id}" in listed)
    lone.process.send_signal(signal.SIGTERM)
    lone.process.wait(60)
    expect("Go has nothing of it", cid not in go1.pins())


def restart(go1, ours):
    ours.process.send_signal(signal.SIGTERM)
    ours.process.wait(60)
    missed = added(go1, sample("missed"), "--name", "missed", "--rmin", "1", "--rmax", "1", "--allocations", go1.id)
    ours.start()
    until("after a restart we are listed again", lambda: is_member(go1, ours, 3))
    passed("after a restart we are a member again")
    # A Go peer cannot be asked for its heads: it tells them again by itself, after up to two of its intervals (a minute each by default).
    until("after a restart we get what was pinned meanwhile", lambda: missed in ours.pins())
    passed("after a restart we get what was pinned meanwhile")


def follows(go1, ours):
    ours.process.send_signal(signal.SIGTERM)
    ours.process.wait(60)
    ours.start(follower=True)
    until("as a follower we are listed", lambda: is_member(go1, ours, 3))
    told = added(go1, sample("told"), "--name", "told")
    until("a follower holds what Go pins", lambda: go1.status(told).get("pinfold") == "pinned")
    for command in (["pin", "rm", told], ["pin", "add", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"]):
        refused = ours.tries(*command)
        expect(f"Go's ctl is told why `{' '.join(command[:2])}` is refused", refused.returncode != 0 and "follower mode" in refused.stdout + refused.stderr)
    expect("and nothing changed", ours.pins().keys() == go1.pins().keys() and told in ours.pins())


def main():
    go1, go2, go3 = Go(1), Go(2), Go(3)
    for go in (go1, go2):
        go.start_kubo()
    # One is named by its address and dialled by us, the other dials us.
    ours = Pinfold([go1.address, go2.id])
    ours.start()
    go1.start([ours.id, go2.id], [go2.address])
    go2.start([ours.id, go1.id], [go1.address, ours.address])
    membership(go1, go2, ours)
    go_cid = go_writes(go1, go2, ours)
    our_cid = we_write(go1, go2, ours)
    allocations(go1, ours)
    commands(go1, ours, go_cid)
    our_door(ours, go_cid, our_cid)
    removals(go1, go2, ours, go_cid, our_cid)
    many(go1, ours)
    newcomers(go1, go3, ours)
    distrusted(go1)
    restart(go1, ours)
    follows(go1, ours)
    expect("nothing ended by itself", all(process.poll() is None for process in RUNNING if process.name not in ("pinfold", "lone") or process is ours.process))
    print(f"figure: {time.time() - BEGUN:.0f} s for all checks among Go peers")


judge(main)
