"""Over HTTP alone: blocks from a Kubo's gateway, providers from a Kubo's router, and a Kubo that asks our router."""
import json, os, subprocess
from daemons import Kubo, Peer
from judge import FOLDER, IPFS, expect, judge, until


def folder():
    """A large file, many small ones and a large directory below one root."""
    root = FOLDER / "content"
    (root / "many").mkdir(parents=True)
    (root / "large").write_bytes(os.urandom(5_000_000))
    for number in range(300):
        (root / "many" / f"{number}").write_text(f"file {number}")
    return root


def server(peer, kind):
    return peer.json("routing", "status")[kind][0]


def main():
    # A Kubo that nobody can reach over libp2p: what comes from it comes over HTTP.
    root = folder()
    alone = Kubo("alone", swarm=[], gateway=["/ip4/127.0.0.1/tcp/0"], Gateway_NoFetch=True)
    cid = alone("add", "-Q", "-r", root)
    blocks = len(set(alone("refs", "-r", cid).split())) + 1
    url = alone.gateway
    reader = Peer("reader", f"gateways = [{json.dumps(url)}]")
    reader.json("pin", "add", cid, "--wait", "1")
    gateway = server(reader, "gateways")
    told = f"asked {gateway['asked']}, given {gateway['given']}, failed {gateway['failed']}"
    whole = gateway["asked"] == gateway["given"] == 2 and gateway["failed"] == 0
    expect(f"a tree that only Kubo's gateway has is pinned over HTTP: its root, then {blocks} blocks as one archive ({told})", whole)
    expect("  without a connection of nodes", not alone("swarm", "peers"))
    alone.stop()
    expect("  and reads back when that Kubo is gone", reader.get(f"/ipfs/{cid}/large") == (root / "large").read_bytes())
    nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    status, said = reader.get_any(f"/ipfs/{nowhere}")
    expect("  a gateway that is gone is named where a block is not found", status == 504 and f"gateway {url}" in said)

    # A Kubo's router: it names another Kubo, from which our node then fetches.
    giver = Kubo("giver", swarm=["/ip4/127.0.0.1/tcp/0"])
    router = Kubo("router", [f"{address}" for address in giver.addresses()], gateway=["/ip4/127.0.0.1/tcp/0"], Gateway_ExposeRoutingAPI=True)
    theirs = FOLDER / "theirs"
    theirs.write_bytes(os.urandom(600_000))
    cid = giver("add", "-Q", theirs)
    until("the other Kubo finds it", lambda: giver("routing", "provide", cid, check=False) is not None and giver.id in router("routing", "findprovs", cid).split())
    asker = Peer("asker", f"delegated = [{json.dumps(router.gateway)}]")
    found = until("Kubo's /routing/v1 names a provider to us", lambda: [row for row in asker.json("routing", "findprovs", cid) if row["node"] == giver.id])
    expect("  with its address", found[0]["addresses"])
    expect("  and our node fetches from it", asker.get(f"/ipfs/{cid}") == theirs.read_bytes())
    expect("  and finds a node by its id", asker.json("routing", "findpeer", giver.id)["addresses"])
    name = giver("name", "publish", "--quieter", f"/ipfs/{cid}")
    resolved = until("a name that Kubo published comes by Kubo's router", lambda: asker.json("name", "resolve", name))
    expect("  and leads there", (resolved["path"], resolved["steps"][0]["from"]) == (f"/ipfs/{cid}", "routing"))

    # Our router, asked by a Kubo without a DHT.
    ours = Peer("ours", "")
    page = FOLDER / "page"
    page.write_bytes(os.urandom(600_000))
    cid = ours.json("add", page, "--copies", "1")["cid"]
    client = Kubo("client", Routing_Type="delegated", Routing_DelegatedRouters=[ours.ready["gateway"]], Provide_Enabled=False)
    until("Kubo finds by our router who has what we have", lambda: ours.node in client("routing", "findprovs", "--num-providers=5", cid).split())
    fetched = subprocess.run([IPFS, "cat", cid], env=client.env, capture_output=True, timeout=90).stdout
    expect("  and fetches it", fetched == page.read_bytes())


judge(main)
