"""Full disks: small file systems in memory, filled from outside and by the peer itself. Nothing that was acknowledged is lost, reading goes on,
messages name the numbers, and once there is room again everything works without a restart."""

import atexit
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PINFOLD = os.environ["PINFOLD_BIN"]
MIB = 1 << 20
HOME = tempfile.mkdtemp(prefix="diskfull-")
mounts = []


def clean():
    for mount in reversed(mounts):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(HOME, ignore_errors=True)


atexit.register(clean)


def mount(path, mebibytes):
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "pinfold", path], check=True)
    mounts.append(path)


class Peer:
    def __init__(self, directory, *flags):
        self.dir = directory
        self.log = open(os.path.join(HOME, os.path.basename(directory) + ".log"), "ab")
        command = [PINFOLD, "up", "--dir", directory, "--name", "peer", "--json", "--until-stdin-closes", "--api", "127.0.0.1:0"]
        command += ["--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]
        self.process = subprocess.Popen(command + list(flags), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        assert line, "the peer did not start: " + open(self.log.name).read()
        ready = json.loads(line)
        self.api, self.gateway = ready["api"], ready["gateway"]

    def run(self, *args, data=None):
        return subprocess.run([PINFOLD, *args, "--api", self.api], input=data, capture_output=True, timeout=240)

    def ok(self, *args, data=None):
        done = self.run(*args, data=data)
        assert done.returncode == 0, (args, done.stderr.decode())
        return done.stdout.decode().strip()

    def refused(self, *args, data=None):
        done = self.run(*args, data=data)
        said = done.stderr.decode()
        assert done.returncode != 0, (args, done.stdout.decode())
        assert "free" in said and "needs" in said, said
        return said

    def keep(self, data):
        return self.ok("add", "-", "--copies", "1", "--wait", "1", "--quiet", data=data)

    def has(self, root, data):
        request = urllib.request.Request(f"{self.gateway}/ipfs/{root}", headers={"Cache-Control": "only-if-cached"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read() == data

    def collect(self):
        request = urllib.request.Request(f"{self.api}/ipfs/gc?local=true", method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def is_alive(self):
        return self.process.poll() is None

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


def noise(length, seed):
    source = random.Random(seed)
    return b"".join(source.randbytes(min(MIB, length - start)) for start in range(0, length, MIB))


def free(path):
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


class Filler:
    """Somebody else who fills the disk."""

    def __init__(self, disk, leave=0):
        self.path = os.path.join(disk, "filler")
        with open(self.path, "wb") as file:
            try:
                while free(disk) > leave:
                    file.write(b"x" * min(MIB, max(4096, free(disk) - leave)))
                    file.flush()
            except OSError:
                pass
        assert free(disk) <= leave + MIB, free(disk)

    def gone(self):
        os.remove(self.path)


def until(what, check, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if check():
            return
        time.sleep(0.3)
    raise AssertionError("never: " + what)


def works(peer, seed):
    """An add and a wish go through again, and are let go."""
    data = noise(MIB, seed)
    root = peer.keep(data)
    assert peer.has(root, data)
    peer.ok("pin", "rm", root)


def full_blocks():
    disk = os.path.join(HOME, "disk")
    mount(disk, 260)
    peer = Peer(os.path.join(disk, "peer"), "--space", "2GB")
    kept = noise(20 * MIB, 1)
    root = peer.keep(kept)

    # The peer itself fills the disk, which is smaller than its limit.
    said = peer.refused("add", "-", "--copies", "1", data=noise(300 * MIB, 2))
    print("note: an add that fills the disk:", said.strip().splitlines()[-1])
    assert peer.is_alive() and peer.has(root, kept)
    peer.collect()
    until("the add's blocks are gone", lambda: free(disk) > 160 * MIB)
    works(peer, 3)

    # Somebody else fills it to the last byte in the middle of an add.
    adding = subprocess.Popen([PINFOLD, "add", "-", "--copies", "1", "--api", peer.api], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    adding.stdin.write(noise(10 * MIB, 4))
    adding.stdin.flush()
    filler = Filler(disk)
    try:
        adding.stdin.write(noise(40 * MIB, 5))
        adding.stdin.close()
    except BrokenPipeError:
        pass
    said = adding.stderr.read().decode()
    assert adding.wait(120) != 0 and "free" in said, said
    assert peer.is_alive() and peer.has(root, kept)
    # A wish needs the disk too.
    said = peer.refused("pin", "add", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "--copies", "1")
    print("note: a wish on a full disk:", said.strip().splitlines()[-1])
    assert peer.has(root, kept) and root in peer.ok("pin", "ls")
    # A collection cannot write its books: it fails or finds nothing to do, and harms nothing.
    try:
        peer.collect()
    except urllib.error.HTTPError:
        pass
    assert peer.has(root, kept)
    filler.gone()
    works(peer, 6)

    # With too little room for more, wishes are refused, and letting go works and brings room.
    other = noise(30 * MIB, 7)
    other_root = peer.keep(other)
    filler = Filler(disk, leave=40 * MIB)
    peer.refused("add", "-", "--copies", "1", data=noise(5 * MIB, 8))
    before = free(disk)
    peer.ok("pin", "rm", other_root)

    def is_freed():
        peer.collect()
        return free(disk) > before + 20 * MIB

    until("letting go brings room on a full disk", is_freed)
    assert peer.has(root, kept)
    filler.gone()
    works(peer, 9)
    peer.stop()

    # After all of it a fresh start has everything.
    peer = Peer(peer.dir, "--space", "2GB")
    assert peer.has(root, kept) and root in peer.ok("pin", "ls")
    peer.stop()


def full_state():
    directory = os.path.join(HOME, "split")
    disk = os.path.join(directory, "state")
    mount(disk, 120)
    peer = Peer(directory)
    kept = noise(5 * MIB, 20)
    root = peer.keep(kept)
    filler = Filler(disk)
    said = peer.refused("pin", "add", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "--copies", "1")
    print("note: a wish on a full state disk:", said.strip().splitlines()[-1])
    peer.refused("add", "-", "--copies", "1", data=noise(MIB, 21))
    assert peer.is_alive() and peer.has(root, kept) and root in peer.ok("pin", "ls")
    filler.gone()
    works(peer, 22)
    peer.stop()
    peer = Peer(directory)
    assert peer.has(root, kept) and root in peer.ok("pin", "ls")
    peer.stop()


full_blocks()
full_state()
print("full disks: passed")
