"""A Kubo daemon and a Pinfold peer on loopback, for the judges of routing."""
import json, os, subprocess, urllib.error, urllib.request
from judge import BIN, FOLDER, IPFS, start, until


class Kubo:
    """A daemon on loopback whose DHT of the local net takes loopback addresses."""

    def __init__(self, name, bootstrap=(), swarm=("/ip4/127.0.0.1/tcp/0",), gateway=(), **more):
        self.name = name
        self.env = {**os.environ, "IPFS_PATH": str(FOLDER / name), "IPFS_TELEMETRY": "off"}
        self("init", "--profile=test")
        addresses = {"API": "/ip4/127.0.0.1/tcp/0", "Gateway": list(gateway), "Swarm": list(swarm)}
        settings = {f"Addresses.{key}": value for key, value in addresses.items()}
        settings |= {"Bootstrap": list(bootstrap), "Routing.Type": "auto", "Routing.LoopbackAddressesOnLanDHT": True, "Discovery.MDNS.Enabled": False}
        settings |= {key.replace("_", "."): value for key, value in more.items()}
        for key, value in settings.items():
            self("config", "--json", key, json.dumps(value))
        self.process = start(name, [IPFS, "daemon"], self.env)
        until(f"{name} is up", lambda: (FOLDER / name / "api").exists() and self("id"))
        self.id = json.loads(self("id"))["ID"]

    def addresses(self):
        """With its id, for others to begin with."""
        return json.loads(self("id"))["Addresses"]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    @property
    def gateway(self):
        """Where it says that its gateway listens."""
        return (FOLDER / self.name / "gateway").read_text().strip()

    def __call__(self, *arguments, **options):
        options = {"check": True, "capture_output": True, "timeout": 90, "env": self.env, **options}
        return subprocess.run([str(part) for part in (IPFS, *arguments)], **options).stdout.decode().strip()


class Peer:
    def __init__(self, name, routing):
        self.dir = FOLDER / name
        self.dir.mkdir()
        (self.dir / "pinfold.toml").write_text(f"[routing]\n{routing}\n")
        flags = ["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]
        flags += ["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0", "--json"]
        process = start(name, [BIN, "up", "--dir", self.dir, "--name", name, *flags], stdout=subprocess.PIPE)
        self.ready = json.loads(process.stdout.readline())
        self.node = self.ready["node"]

    def json(self, *arguments):
        argv = [str(part) for part in (BIN, *arguments, "--json")]
        done = subprocess.run(argv, check=True, capture_output=True, timeout=90, env={**os.environ, "PINFOLD_API": self.ready["api"]})
        return json.loads(done.stdout.decode().splitlines()[-1])

    def get(self, path):
        return urllib.request.urlopen(self.ready["gateway"] + path, timeout=60).read()

    def get_any(self, path):
        """Whatever is answered: status and text."""
        try:
            answer = urllib.request.urlopen(self.ready["gateway"] + path, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        return answer.status, answer.read().decode(errors="replace")

    def peers_known(self):
        return self.json("routing", "status")["dht"][0]["peers"]
