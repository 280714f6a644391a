"""Peers in network namespaces with a lossy network between them (link.py); standard library only. Needs root and `ip`."""
import base64, contextlib, ctypes, http.client, json, os, pathlib, random, shutil, signal, socket, subprocess, sys, tempfile, threading, time

HERE = pathlib.Path(__file__).resolve().parent
BIN = os.environ["PINFOLD_BIN"]
BEGUN = time.monotonic()
CLONE_NEWNET = 0x40000000
API, GATEWAY = 9094, 8080
# A door that has not answered after this does not answer "at once", on the slowest machine.
AT_ONCE = 10
libc = ctypes.CDLL(None, use_errno=True)


def passed(what):
    print(f"ok {time.monotonic() - BEGUN:6.1f} s  {what}", flush=True)


def fail(what):
    raise SystemExit(f"FAILED after {time.monotonic() - BEGUN:.1f} s: {what}")


def until(what, check, limit=120):
    """Waits until `check` gives something; a check that fails is tried again."""
    end, last = time.monotonic() + limit, None
    while time.monotonic() < end:
        try:
            last = check()
            if last:
                return last
        except (OSError, KeyError, ValueError, http.client.HTTPException, Refused) as error:
            last = error
        time.sleep(0.25)
    fail(f"not within {limit} s: {what} (last: {str(last)[:2000]!r})")


class Refused(Exception):
    """The peer answered with an error."""


@contextlib.contextmanager
def inside(namespace):
    """This thread is in another network namespace meanwhile; sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"entering {namespace}")
        yield
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)
        os.close(there)


def inline(text):
    """A CID that carries its content (identity hash): every peer has it at once."""
    data = text.encode()
    assert len(data) < 128
    return "b" + base64.b32encode(b"\x01\x55\x00" + bytes([len(data)]) + data).decode().lower().rstrip("=")


class Peer:
    def __init__(self, world, number):
        self.world, self.number, self.name = world, number, f"p{number}"
        self.namespace, self.dir = world.namespaces[number], world.folder / f"p{number}"
        self.process, self.id, self.is_stopped = None, None, False

    def start(self, *command, limit=120):
        log = open(self.world.folder / f"{self.name}.log", "ab")
        host = f"10.77.0.{self.number + 1}"
        argv = ["ip", "netns", "exec", self.namespace, BIN, *command, "--dir", self.dir, "--name", self.name, "--json",
                "--api", f"127.0.0.1:{API}", "--gateway", f"127.0.0.1:{GATEWAY}", "--proxy", "127.0.0.1:0",
                "--cluster", f"/ip4/{host}/tcp/9096", "--swarm", f"/ip4/{host}/tcp/4001", "--grace", self.world.grace]
        self.process = subprocess.Popen([str(part) for part in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        try:
            ready = json.loads(line)
        except ValueError:
            fail(f"{self.name} did not start: {line!r} {self.log()}")
        self.id = ready["peer"]
        return self

    def log(self, bytes=2000):
        return (self.world.folder / f"{self.name}.log").read_text(errors="replace")[-bytes:]

    def again(self):
        return self.start("up")

    def end(self, how=signal.SIGTERM):
        if self.is_stopped:
            self.signal(signal.SIGCONT)
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.process.stdout.close()
        if how == signal.SIGTERM and code != 0:
            fail(f"{self.name} ended with {code} after SIGTERM: {self.log()}")

    def signal(self, number):
        self.process.send_signal(number)
        self.is_stopped = number == signal.SIGSTOP

    def is_up(self):
        return self.process is not None and self.process.poll() is None

    def usage(self):
        """RssAnon in MiB, open file descriptors."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        return rss / 1024, len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def ask(self, method, path, body=None, headers=None, timeout=60, port=API):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        with inside(self.namespace):
            connection.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(f"{self.name} {method} {path}: {answer.status} {data[:500]!r}")
        return data

    def json(self, method, path, **options):
        return json.loads(self.ask(method, path, **options) or b"null")

    def lines(self, path, **options):
        return [json.loads(line) for line in self.ask("GET", path, **options).splitlines() if line.strip()]

    def add(self, data, copies=2, timeout=120):
        """Adds a file; its CID when it is acknowledged."""
        body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + data + b"\r\n--B--\r\n"
        # Not streamed: a streamed answer names the root before the pin is written, and says in a trailer how that went.
        path = f"/add?cid-version=1&raw-leaves=true&stream-channels=false&replication={copies}"
        answer = self.ask("POST", path, body, {"Content-Type": "multipart/form-data; boundary=B"}, timeout)
        lines = json.loads(answer) if answer.startswith(b"[") else [json.loads(line) for line in answer.splitlines() if line.strip()]
        cids = [line["cid"] for line in lines if isinstance(line, dict) and line.get("cid")]
        if not cids:
            raise Refused(f"{self.name}: an add without a root: {answer[:300]!r}")
        return cids[-1]

    def pin(self, cid, timeout=60):
        self.ask("POST", f"/pins/{cid}", timeout=timeout)

    def unpin(self, cid, timeout=60):
        self.ask("DELETE", f"/pins/{cid}", timeout=timeout)

    def wishes(self):
        """CID -> holders, of everything that is pinned."""
        return {pin["cid"]: sorted(pin["allocations"] or []) for pin in self.lines("/allocations")}

    def health(self):
        """Name -> health of all members as this one sees them."""
        return {row["name"]: row["health"] for row in self.json("GET", "/pinfold/v1/peers")}

    def statuses(self):
        """CID -> names that hold it and are heard of."""
        up = {row["peer"] for row in self.json("GET", "/pinfold/v1/peers") if row["health"] == "up"}
        held = {}
        for pin in self.lines("/pins"):
            held[pin["cid"]] = sorted(copy["peername"] for peer, copy in pin["peer_map"].items() if copy["status"] == "pinned" and peer in up)
        return held

    def read(self, cid, timeout=60):
        return self.ask("GET", f"/ipfs/{cid}", timeout=timeout, port=GATEWAY)


class World:
    """So many namespaces and peers; to be used in a `with`."""

    def __init__(self, count, grace):
        self.count, self.grace = count, grace
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pinfold-faults-"))
        self.namespaces = [f"pinfold-{os.getpid()}-{number}" for number in range(count)]
        self.peers, self.link, self.rules = [], None, threading.Lock()

    def __enter__(self):
        # So that what follows is undone when the program is told to end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            for namespace in self.namespaces:
                ip("netns", "add", namespace)
            argv = [sys.executable, HERE / "link.py", *self.namespaces]
            self.link = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self.link.stdout.readline() != "ready\n":
                fail("the link program did not start")
            for number, namespace in enumerate(self.namespaces):
                for command in (["addr", "add", f"10.77.0.{number + 1}/24", "dev", "tun0"],
                                ["link", "set", "tun0", "up", "mtu", "1400", "txqueuelen", "2000"], ["link", "set", "lo", "up"]):
                    ip("-n", namespace, *command)
            self.peers = [Peer(self, number) for number in range(self.count)]
            self.peers[0].start("up")
            for peer in self.peers[1:]:
                peer.start("join", self.peers[0].json("POST", "/pinfold/v1/invite")["invite"])
            self.meet()
        except BaseException:
            self.close(True)
            raise
        passed(f"{self.count} peers in {self.count} namespaces see each other")
        return self

    def __exit__(self, kind, error, trace):
        self.close(kind is not None)

    def close(self, has_failed):
        for peer in self.peers:
            if peer.is_up():
                if peer.is_stopped:
                    peer.signal(signal.SIGCONT)
                peer.process.kill()
                peer.process.wait()
            if has_failed and peer.process is not None:
                print(f"--- the end of the log of {peer.name}\n{peer.log()}", flush=True)
        if self.link is not None:
            self.link.kill()
            self.link.wait()
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        if not (has_failed and os.environ.get("PINFOLD_KEEP")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def set_link(self, source, target, **rule):
        """What happens to packets in one direction from now on."""
        with self.rules:
            self.link.stdin.write(json.dumps({"from": source, "to": target, **rule}) + "\n")
            self.link.stdin.flush()
            if self.link.stdout.readline() != "ok\n":
                fail("the link program ended")

    def all_links(self, **rule):
        for source in range(self.count):
            for target in range(self.count):
                if source != target:
                    self.set_link(source, target, **rule)

    def split(self, side):
        """Cuts the links between the peers with these numbers and the others."""
        for source in range(self.count):
            for target in range(self.count):
                if (source in side) != (target in side):
                    self.set_link(source, target, cut=True)

    def heal(self):
        self.all_links()

    def up(self):
        return [peer for peer in self.peers if peer.is_up() and not peer.is_stopped]

    def meet(self, limit=180):
        names = {peer.name: "up" for peer in self.peers}
        for peer in self.peers:
            until(f"{peer.name} sees all the others", lambda: peer.health() == names, limit)

    def agree(self, limit=180):
        """All peers wish the same; gives it."""
        def same():
            wishes = [peer.wishes() for peer in self.peers]
            return all(wish == wishes[0] for wish in wishes) and (wishes[0] or {"": []})
        return until("all peers wish the same", same, limit)

    def check(self, kept, gone=(), copies=2, limit=240, tell=lambda cid: ""):
        """Every CID of `kept` (CID -> bytes, or none) is wished by all, has its copies, and reads equal; none of `gone` is wished."""
        wish = self.agree(limit)
        missing = [cid for cid in kept if cid not in wish]
        if missing:
            fail(f"{len(missing)} acknowledged pins are not wished: {[(cid, tell(cid)) for cid in missing[:5]]}")
        ghosts = [cid for cid in gone if cid in wish]
        if ghosts:
            fail(f"{len(ghosts)} removed pins are wished again: {[(cid, tell(cid)) for cid in ghosts[:5]]}")

        def short():
            held = self.peers[0].statuses()
            few = {cid: held.get(cid, []) for cid in kept if len(held.get(cid, [])) < copies}
            if few:
                raise ValueError(f"{len(few)} of {len(kept)} short, e.g. {list(few.items())[:3]}")
            return True

        until("every pin has its copies", short, limit)
        held = self.peers[0].statuses()
        names = {peer.name: peer for peer in self.peers}
        for cid, data in kept.items():
            if data is None:
                continue
            for name in held[cid]:
                # Only what is there: a holder must have every byte itself.
                said = names[name].ask("GET", f"/ipfs/{cid}", headers={"Cache-Control": "only-if-cached"}, port=GATEWAY)
                if said != data:
                    fail(f"{name} gives other bytes for {cid}")


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"ip {' '.join(arguments)}: {done.stderr}")


def noise(chance, least, most):
    return chance.randbytes(chance.randint(least, most))


def at_once(peers, work, count, threads=8):
    """Calls `work(number, peer)` for so many numbers on several threads; the results."""
    results, numbers, lock, errors = [], iter(range(count)), threading.Lock(), []

    def run():
        while not errors:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results.append(work(number, peers[number % len(peers)]))
            except BaseException as error:
                errors.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return results


__all__ = ["AT_ONCE", "GATEWAY", "Peer", "Refused", "World", "at_once", "fail", "inline", "noise", "passed", "random", "signal", "until"]
