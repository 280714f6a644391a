"""What the judges with other implementations of IPFS share: a peer of ours, what two folders have in common, content that travels both ways.
Standard library only."""

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

PINFOLD = os.environ["PINFOLD_BIN"]
BEGUN = time.time()


def passed(what):
    print(f"ok {time.time() - BEGUN:6.1f} s  {what}", flush=True)


def expect(what, value):
    if not value:
        raise SystemExit(f"FAILED: {what}: {value!r}")


def timed(judge, what, action):
    """Prints how long it took, as a figure of this judge."""
    begun = time.time()
    given = action()
    print(f"figure: {judge}: {what}: {time.time() - begun:.1f} s", flush=True)
    return given


class Peer:
    """`pinfold up`, its data and log in `folder`."""

    def __init__(self, folder):
        log = folder / "peer.log"
        self.log = open(log, "ab")
        doors = ["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]
        libp2p = ["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]
        argv = [PINFOLD, "up", "--dir", folder / "peer", "--name", "peer", "--json", "--until-stdin-closes", *doors, *libp2p]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        expect(f"the peer starts: {log.read_text()[-2000:]}", line)
        ready = json.loads(line)
        self.api, self.gateway, self.swarm, self.node = (ready[what] for what in ("api", "gateway", "swarm", "node"))

    def cli(self, *arguments):
        done = subprocess.run([PINFOLD, *arguments, "--api", self.api], capture_output=True, text=True, timeout=240)
        expect(f"pinfold {' '.join(map(str, arguments))}: {done.stderr}", done.returncode == 0)
        return done.stdout.strip()

    def add(self, path, *flags):
        return self.cli("add", path, "-q", *flags)

    def add_with(self, data, **options):
        """The REST door, with options that the command has not."""
        boundary = "a-border-that-is-not-in-the-data"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="data"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        url = f"{self.api}/add?{urllib.parse.urlencode(options)}"
        request = urllib.request.Request(url, body, {"content-type": f"multipart/form-data; boundary={boundary}"})
        try:
            lines = urllib.request.urlopen(request, timeout=60).read().decode().splitlines()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"FAILED: the peer adds with {options}: {error.read().decode()}")
        return json.loads(lines[-1])["cid"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


def content(path):
    """What is at a path and below it, as one value: kinds, names, bytes."""
    digest = hashlib.sha256()

    def take(at, name):
        if os.path.islink(at):
            what = [b"link", os.readlink(at)]
        elif os.path.isdir(at):
            below = sorted(os.listdir(at))
            what = [b"folder", b"%d" % len(below)]
        else:
            with open(at, "rb") as source:
                what = [b"file", hashlib.file_digest(source, "sha256").digest() if hasattr(hashlib, "file_digest") else hashlib.sha256(source.read()).digest()]
        for part in [name, *what]:
            digest.update(b"%d:" % len(part) + part)
        if what[0] == b"folder":
            for entry in below:
                take(os.path.join(at, entry), entry)

    take(os.fsencode(path), b"")
    return digest.hexdigest()


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def travel(judge, name, other, peer, folder, journeys, look=lambda what, back, source: None):
    """Content both ways between a peer and another implementation, which has `add` and `get`; another content in each direction, or nothing
    would have to travel. `look`: at what it got from the peer."""
    source, back = folder / "source", folder / "back"
    for what, make in journeys:
        make(source, "from the peer")
        cid = timed(judge, f"{what}: the peer adds", lambda: peer.add(source))
        timed(judge, f"{what}: {name} fetches and writes", lambda: other.get(cid, back))
        expect(f"{what}: {name} has the bytes of the peer", content(back) == content(source))
        look(what, back, source)
        remove(source)
        remove(back)
        passed(f"{what}, from the peer to {name}")

        make(source, f"from {name}")
        cid = timed(judge, f"{what}: {name} adds", lambda: other.add(source))
        timed(judge, f"{what}: the peer fetches and keeps", lambda: peer.cli("pin", "add", cid, "--copies", "1", "--wait", "1"))
        timed(judge, f"{what}: the peer gives it back", lambda: peer.cli("get", cid, "-o", back))
        expect(f"{what}: the peer has the bytes of {name}", content(back) == content(source))
        remove(source)
        remove(back)
        passed(f"{what}, from {name} to the peer")
