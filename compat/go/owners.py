"""Owners beside Go: two owners keep one CID, Go sees one ordinary pin; one owner's unpin keeps the other's; what a Go client writes or removes is the
cluster's wish alone, and what it drops comes back."""
import subprocess, time
from among import Go, Pinfold, added, http, sample
from judge import BEGUN, BIN, RUNNING, expect, judge, until


def ours_says(peer, *arguments):
    return subprocess.run([BIN, *arguments, "--api", peer.url], check=True, capture_output=True, text=True, timeout=60).stdout


def owners(peer, cid):
    """As the pin's metadata names them; None where there is no such pin."""
    pin = peer.pins().get(cid)
    if pin is None:
        return None
    return ((pin.get("metadata") or {}).get("pinfold-owners") or "").split("\n")[1:]


def everywhere(peers, cid, wanted):
    return all(owners(peer, cid) == wanted for peer in peers)


def main():
    go = Go(1)
    go.start_kubo()
    ours = Pinfold([go.address])
    ours.start()
    go.start(["*"], [ours.address])
    until("Go lists us", lambda: any(row["id"] == ours.id and not row["error"] for row in go.ask("peers", "ls")))
    invite = ours_says(ours, "invite").split()[-1]
    second = Pinfold([go.address], "second")
    second.start(invite=invite)
    peers = [ours, second, go]
    until("Go lists the second", lambda: any(row["id"] == second.id and not row["error"] for row in go.ask("peers", "ls")))
    cid = added(ours, sample("owned"), "--name", "plain")
    until("all have it", lambda: everywhere(peers, cid, []))

    ours_says(ours, "pin", "add", cid, "--owner", "anna", "--name", "site")
    until("Go sees the first owner", lambda: everywhere(peers, cid, ["anna/site"]))
    until("the second peer knows the claim", lambda: "site" in ours_says(second, "pin", "ls", "--owner", "anna"))
    ours_says(second, "pin", "add", cid, "--owner", "bert", "--name", "copy")
    until("and the second, in one pin", lambda: everywhere(peers, cid, ["anna/site", "bert/copy"]))
    expect("Go lists one pin of it", list(go.pins()) == [cid] and go.pins()[cid]["name"] == "plain")

    ours_says(ours, "pin", "rm", cid, "--owner", "bert")
    until("one owner's unpin keeps the other's", lambda: everywhere(peers, cid, ["anna/site"]))

    # The metadata of a pin is replaced by whoever pins it again.
    go.ask("pin", "add", "--name", "by Go", "--metadata", "made=there", cid)
    until("a re-pin by a Go client keeps the owner", lambda: everywhere(peers, cid, ["anna/site"]) and go.pins()[cid]["name"] == "by Go")
    expect("and what the client said", all(peer.pins()[cid]["metadata"]["made"] == "there" for peer in peers))

    go.ask("pin", "rm", cid)
    until("an unpin by a Go client ends the cluster's wish alone",
          lambda: everywhere(peers, cid, ["anna/site"]) and go.pins()[cid]["name"] == "site")
    until("it is held by all", lambda: list(go.status(cid).values()) == ["pinned"] * 3)
    content = http("POST", f"http://127.0.0.1:{go.kubo}/api/v0/cat?arg={cid}&offline=true")
    expect("Go's node has the bytes", content == http("GET", f"{ours.gateway}/ipfs/{cid}") and len(content) == 300_000)

    ours_says(second, "pin", "rm", cid, "--owner", "anna")
    until("with its last owner it goes", lambda: all(cid not in peer.pins() for peer in peers))
    time.sleep(15)
    expect("and stays away", all(cid not in peer.pins() for peer in peers))
    expect("nothing ended by itself", all(process.poll() is None for process in RUNNING))
    print(f"figure: {time.time() - BEGUN:.0f} s for all checks of owners beside Go")


judge(main)
