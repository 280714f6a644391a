"""One DHT on loopback of two Kubo daemons and two Pinfold peers that begin with one of ours: content, peers and names found both ways."""
import json, os, subprocess
from daemons import Kubo, Peer
from judge import FOLDER, IPFS, expect, judge, until


def main():
    hub = Peer("hub", 'mode = "server"')
    bootstrap = hub.ready["swarm"]
    ours = Peer("ours", f"bootstrap = {json.dumps(bootstrap)}")
    one, two = Kubo("kubo-one", bootstrap), Kubo("kubo-two", bootstrap)
    until("all are in our table", lambda: ours.peers_known() >= 3 and hub.peers_known() >= 3, 150)

    # Ours: told by us, found and fetched by Kubo.
    page = FOLDER / "page"
    page.write_bytes(os.urandom(600_000))
    cid = ours.json("add", page, "--copies", "1")["cid"]
    until("Kubo finds who has what we told", lambda: ours.node in one("routing", "findprovs", "--num-providers=5", cid).split())
    one("swarm", "disconnect", f"/p2p/{ours.node}", check=False)
    fetched = subprocess.run([IPFS, "cat", cid], env=one.env, capture_output=True, timeout=90).stdout
    expect("  and fetches it", fetched == page.read_bytes())
    expect("Kubo finds our node by its id", "/ip4/127.0.0.1/tcp/" in two("routing", "findpeer", ours.node))

    # Kubo's: told by Kubo to our servers, found and fetched by us, and found by the other Kubo.
    theirs = FOLDER / "theirs"
    theirs.write_bytes(os.urandom(600_000))
    cid = one("add", "-Q", theirs)
    one("routing", "provide", cid, check=False)
    found = until("we find who has what Kubo told", lambda: [row for row in ours.json("routing", "findprovs", cid) if row["node"] == one.id])
    expect("  with its address", found[0]["addresses"])
    expect("  and fetch it", ours.get(f"/ipfs/{cid}") == theirs.read_bytes())
    expect("the other Kubo finds it too", one.id in two("routing", "findprovs", "--num-providers=5", cid).split())
    for turn in range(2):
        other = FOLDER / f"theirs-{turn}"
        other.write_bytes(os.urandom(600_000))
        of_one = one("add", "-Q", other)
        one("routing", "provide", of_one, check=False)
        two("swarm", "disconnect", f"/p2p/{one.id}", check=False)
        fetched = subprocess.run([IPFS, "cat", of_one], env=two.env, capture_output=True, timeout=90).stdout
        expect("  and fetches from it what we never had", fetched == other.read_bytes())
    expect("we find Kubo's node by its id", ours.json("routing", "findpeer", two.id)["addresses"])

    # Names.
    name = one("name", "publish", "--quieter", f"/ipfs/{cid}")
    resolved = until("a name that Kubo published is found", lambda: ours.json("name", "resolve", name))
    expect("  by routing, and leads there", (resolved["path"], resolved["steps"][0]["from"]) == (f"/ipfs/{cid}", "routing"))
    published = ours.json("name", "publish", f"/ipfs/{cid}")
    expect("our record is taken", [told["error"] for told in published["told"]] == [None])
    until("Kubo resolves our name", lambda: two("name", "resolve", "--nocache", published["name"]) == f"/ipfs/{cid}")


judge(main)
