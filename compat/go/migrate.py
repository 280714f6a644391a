"""A real Go peer becomes a Pinfold peer: its pins are read out of its own database by its own program; standard library only."""
import hashlib, json, os, pathlib, shutil, subprocess, tempfile, time, urllib.request

from state import BIN, SERVICE, by_cid, expect, pinset, run

# It holds its own content: nobody has to be asked for it.
LAST = "bafkqabttmvrw63te"
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="pinfold-migrate-"))


def prints(folder):
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def migrate(go, new):
    return subprocess.run([BIN, "migrate", go, "--dir", new, "--service", SERVICE, "--json"], capture_output=True, text=True, timeout=120)


def filled(go, consensus, count):
    """Makes the folder of a Go peer with so many pins; these as it exports them."""
    run(SERVICE, "-c", go, "init", "--consensus", consensus, "--randomports")
    file, out = FOLDER / f"{consensus}-pins.ndjson", FOLDER / f"{consensus}-out.ndjson"
    file.write_text("".join(json.dumps(one) + "\n" for one in pinset(count)))
    run(SERVICE, "-c", go, "state", "import", "-f", file)
    run(SERVICE, "-c", go, "state", "export", "-f", out)
    return out.read_text()


def main():
    go, new = FOLDER / "crdt", FOLDER / "crdt-new"
    theirs = filled(go, "crdt", 500)

    daemon = subprocess.Popen([SERVICE, "-c", go, "daemon"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(3)
        refused = migrate(go, new)
        expect("a running Go peer is not migrated", refused.returncode != 0 and "is running" in refused.stderr)
    finally:
        daemon.terminate()
        daemon.wait(60)

    before = prints(go)
    done = migrate(go, new)
    if done.returncode != 0:
        raise SystemExit(f"FAILED: a stopped one is: {done.stderr}")
    done = json.loads(done.stdout)
    identity = json.loads((go / "identity.json").read_text())
    expect("it keeps its id and its pins", (done["peer"], done["pins"]) == (identity["id"], len(by_cid(theirs))))
    expect("its folder is untouched", prints(go) == before)
    process = subprocess.Popen(
        [BIN, "up", "--dir", new, "--json", "--node", "embedded", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0",
         "--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(FOLDER / "ours.log", "wb"), text=True)
    try:
        ready = json.loads(process.stdout.readline())
        expect("the peer is the same", ready["peer"] == identity["id"])
        expect("its pins are Go's, byte for byte", by_cid(run(BIN, "state", "export", "--api", ready["api"])) == by_cid(theirs))
    finally:
        process.terminate()
        process.wait(60)


def raft():
    """The pins of a Raft peer: out of the snapshot that it writes as it stops, and none of a peer that was killed."""
    go, new = FOLDER / "raft", FOLDER / "raft-new"
    theirs = by_cid(filled(go, "raft", 200))
    door = json.loads((go / "service.json").read_text())["api"]["restapi"]["http_listen_multiaddress"].rsplit("/", 1)[1]

    def answers(method, path, wanted):
        """Waits for an answer that has what is wanted. Without a Kubo it never says that it is ready, and asked too early it crashes."""
        time.sleep(5)
        end = time.time() + 60
        while time.time() < end:
            try:
                request = urllib.request.Request(f"http://127.0.0.1:{door}{path}", method=method)
                if wanted in urllib.request.urlopen(request, timeout=30).read().decode():
                    return
            except OSError:
                pass
            time.sleep(0.5)
        raise SystemExit(f"FAILED: the Raft peer does not answer {method} {path}")

    def daemon(ask, end):
        with open(FOLDER / "raft.log", "wb") as log:
            process = subprocess.Popen([SERVICE, "-c", go, "daemon"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            answers(*ask, LAST)
        finally:
            end(process)
            process.wait(60)

    daemon(("POST", f"/pins/{LAST}?name=last"), subprocess.Popen.kill)
    refused = migrate(go, new)
    expect("a Raft peer that was killed is not migrated", refused.returncode != 0 and "not stopped cleanly" in refused.stderr)
    daemon(("GET", "/allocations?filter=all"), subprocess.Popen.terminate)
    done = migrate(go, new)
    if done.returncode != 0:
        raise SystemExit(f"FAILED: one that was stopped is: {done.stderr}")
    kept = {line for path in new.glob("*.ndjson") for line in path.read_text().splitlines()}
    mine = by_cid("\n".join(kept))
    expect("its pins are Go's, and the last one is there", json.loads(done.stdout)["pins"] == len(theirs) + 1 and mine.keys() - theirs.keys() == {LAST})
    expect("line for line", all(mine[cid] == theirs[cid] for cid in theirs))


main()
raft()
shutil.rmtree(FOLDER)
