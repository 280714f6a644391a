//! Two network namespaces with a slow line between them (`compat/faults/link.py`), and a peer in each. Needs root.

use crate::bench::million::swarm_of;
use crate::bench::process::{Running, client, until};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// One way, in seconds.
pub const WAY: f64 = 0.05;
/// Bits a second: well below what the link program and two processors manage, so that the link is what limits.
pub const RATE: f64 = 100e6;
/// A transfer that takes longer is called off.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Whether the machine can make one; says so where it cannot.
pub fn is_possible(part: &str) -> bool {
    let is_possible = Path::new("/dev/net/tun").exists() && Command::new("ip").args(["netns", "list"]).output().is_ok();
    if !is_possible {
        println!("skipped: {part} needs root, ip and /dev/net/tun");
    }
    is_possible
}

/// Two namespaces and the link program between them; both end with it.
pub struct World {
    /// Their names; the addresses in them are 10.77.0.1 and 10.77.0.2.
    pub namespaces: [String; 2],
    program: Child,
    rules: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl World {
    /// With a perfect link.
    pub fn new(root: &Path) -> anyhow::Result<World> {
        let namespaces = [1, 2].map(|number| format!("pinfold-bench-{}-{number}", std::process::id()));
        let made = Made(&namespaces);
        for namespace in &namespaces {
            client(Command::new("ip").args(["netns", "add", namespace]))?;
        }
        let mut command = Command::new("python3");
        command.arg(root.join("compat/faults/link.py")).args(&namespaces).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = command.spawn().context("starting the link program")?;
        let rules = program.stdin.take();
        let answers = BufReader::new(program.stdout.take().context("the answers of the link program")?);
        std::mem::forget(made);
        let mut world = World { namespaces, program, rules, answers };
        world.answered("ready")?;
        for (number, namespace) in world.namespaces.iter().enumerate() {
            let address = format!("10.77.0.{}/24", number + 1);
            for arguments in [
                &["addr", "add", &address, "dev", "tun0"][..],
                &["link", "set", "tun0", "up", "mtu", "1400", "txqueuelen", "2000"],
                &["link", "set", "lo", "up"],
            ] {
                client(Command::new("ip").args(["-n", namespace]).args(arguments))?;
            }
        }
        Ok(world)
    }

    fn answered(&mut self, expected: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("reading from the link program")?;
        if line.trim() == expected { Ok(()) } else { bail!("the link program said {line:?}") }
    }

    /// From now on the line is slow, and loses this share of packets.
    pub fn link(&mut self, loss: f64) -> anyhow::Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            let rule = json!({ "from": from, "to": to, "delay": WAY, "loss": loss, "rate": RATE });
            let rules = self.rules.as_mut().context("the link program")?;
            writeln!(rules, "{rule}").and_then(|()| rules.flush()).context("telling the link program")?;
            self.answered("ok")?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It ends with its standard input.
        self.rules = None;
        self.program.wait().ok();
        drop(Made(&self.namespaces));
    }
}

/// Namespaces that are removed at the end.
struct Made<'a>(&'a [String; 2]);

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for namespace in self.0 {
            Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status().ok();
        }
    }
}

/// A peer in a namespace.
pub struct Peer {
    /// Its process.
    pub running: Running,
    namespace: String,
    api: String,
    /// Addresses of its node, with the node's id.
    pub swarm: Vec<String>,
}

impl Peer {
    /// In the first or the second namespace (`number`); `settings` are those of its `pinfold.toml`. Its doors are reached from its namespace alone.
    pub fn start(binary: &Path, place: &Path, world: &World, number: usize, name: &str, settings: &str) -> anyhow::Result<Peer> {
        let namespace = &world.namespaces[number - 1];
        let dir: PathBuf = place.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        std::fs::write(dir.join("pinfold.toml"), settings).context("writing the settings of a peer")?;
        let log = place.join(format!("{name}.log"));
        let host = format!("/ip4/10.77.0.{number}");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary).arg("up").arg("--dir").arg(&dir).args(["--name", name, "--json"]);
        command.args(["--api", "127.0.0.1:9094", "--gateway", "127.0.0.1:8080", "--proxy", "127.0.0.1:0"]);
        command.args(["--cluster", &format!("{host}/tcp/9096"), "--swarm", &format!("{host}/tcp/4001")]);
        command.args(["--swarm", &format!("{host}/udp/4001/quic-v1")]);
        let mut running = Running::start("a pinfold peer", &mut command, &log)?;
        let ready = until("a peer is ready", Duration::from_secs(60), || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|value| value["ready"] == true))
        });
        running.check()?;
        let ready = ready?;
        let addresses = ready["swarm"].as_array().cloned().unwrap_or_default();
        let swarm = addresses.iter().filter_map(|address| swarm_of(&json!({ "swarm": [address], "node": ready["node"] }))).collect();
        let api = ready["api"].as_str().unwrap_or_default().to_owned();
        Ok(Peer { running, namespace: namespace.clone(), api, swarm })
    }

    /// What a command says to it.
    pub fn client(&self, binary: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).args(["ip", "netns", "exec", &self.namespace]).arg(binary).args(arguments);
        client(command.args(["--api", &self.api]))
    }
}
