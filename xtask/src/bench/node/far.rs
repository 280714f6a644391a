//! One file over bitswap between two namespaces with 100 ms round trip between them (`compat/faults/link.py`), without and with 1% loss;
//! beside it the same bytes over a plain TCP connection on the same link, with the system's own congestion control.

use super::said;
use crate::bench::machine::round as rounded;
use crate::bench::million::swarm_of;
use crate::bench::process::{Running, client, until};
use crate::bench::{Options, slice};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// One way, in seconds.
const WAY: f64 = 0.05;
/// Share of packets that are lost.
const LOSS: f64 = 0.01;
/// Bits a second: well below what the link program and two processors manage, so that the link is what limits.
const RATE: f64 = 100e6;
/// More takes too long where loss is what limits.
const MIB_MOST: u64 = 128;
/// A transfer that takes longer is called off.
const PATIENCE: Duration = Duration::from_secs(300);

/// Both links, each with plain TCP, and the holder named by all its addresses and by that of QUIC alone.
pub fn run(root: &Path, place: &Path, options: &Options, round: usize) -> anyhow::Result<Vec<Value>> {
    if !Path::new("/dev/net/tun").exists() || Command::new("ip").args(["netns", "list"]).output().is_err() {
        println!("skipped: far needs root, ip and /dev/net/tun");
        return Ok(Vec::new());
    }
    let binary = slice::build(root)?;
    let options = Options { mib: options.mib.min(MIB_MOST), ..options.clone() };
    let file = slice::make_large(place, &options)?;
    let mut world = World::new(root)?;
    let holder = Peer::start(&binary, place, &world.namespaces[0], 1, "holder")?;
    let added = holder.client(&binary, &["add", &file.to_string_lossy(), "--quiet", "--wait", "1"])?;
    let content = added.trim().lines().last().context("the root of the file")?.to_owned();
    let mut figures = Vec::new();
    for loss in [0.0, LOSS] {
        world.link(loss)?;
        let plain = world.plain(root, &file)?;
        figures.push(said(figure("plain TCP", loss, options.mib, plain, plain), round));
        for (kind, way) in [("every address", "/"), ("QUIC only", "/quic-v1/")] {
            std::fs::remove_dir_all(place.join("taker")).ok();
            let taker = Peer::start(&binary, place, &world.namespaces[1], 2, "taker")?;
            let origins = holder.swarm.iter().filter(|address| address.contains(way)).flat_map(|address| ["--origin", address]);
            let arguments: Vec<&str> = ["pin", "add", &content, "--wait", "1"].into_iter().chain(origins).collect();
            let (begun, before) = (Instant::now(), (holder.running.cpu(), taker.running.cpu()));
            // QUIC may crawl where packets are lost.
            let outcome = taker.client(&binary, &arguments);
            if outcome.is_err() && begun.elapsed() >= PATIENCE {
                figures
                    .push(said(json!({ "subject": format!("pinfold, {kind}"), "loss": loss, "not_within_s": PATIENCE.as_secs() }), round));
                continue;
            }
            outcome?;
            let seconds = begun.elapsed().as_secs_f64();
            if seconds < (options.mib << 23) as f64 / RATE {
                let status = taker.client(&binary, &["status", &content, "--json"])?;
                bail!("the pin was confirmed after {seconds:.3} s, before the link could carry it: {status}");
            }
            let mut figure = figure(&format!("pinfold, {kind}"), loss, options.mib, seconds, plain);
            let gigabytes = (options.mib << 20) as f64 / 1e9;
            figure["cpu_s_per_gb_giving"] = json!(rounded((holder.running.cpu() - before.0) / gigabytes));
            figure["cpu_s_per_gb_taking"] = json!(rounded((taker.running.cpu() - before.1) / gigabytes));
            figures.push(said(figure, round));
        }
    }
    Ok(figures)
}

fn figure(subject: &str, loss: f64, mib: u64, seconds: f64, plain: f64) -> Value {
    let work = format!("bitswap at 100 ms, {}% loss, {} Mbit/s", loss * 100.0, RATE / 1e6);
    let megabytes = (mib << 20) as f64 / 1e6;
    json!({
        "subject": subject, "work": work, "bytes": mib << 20, "seconds": rounded(seconds), "mb_s": rounded(megabytes / seconds),
        "of_plain_tcp": rounded(plain / seconds),
    })
}

/// Two namespaces and the link program between them; both end with it.
struct World {
    namespaces: [String; 2],
    program: Child,
    rules: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl World {
    fn new(root: &Path) -> anyhow::Result<World> {
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

    fn link(&mut self, loss: f64) -> anyhow::Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            let rule = json!({ "from": from, "to": to, "delay": WAY, "loss": loss, "rate": RATE });
            let rules = self.rules.as_mut().context("the link program")?;
            writeln!(rules, "{rule}").and_then(|()| rules.flush()).context("telling the link program")?;
            self.answered("ok")?;
        }
        Ok(())
    }

    /// Seconds of a plain transfer.
    fn plain(&self, root: &Path, file: &Path) -> anyhow::Result<f64> {
        let python = |namespace: &str, arguments: &[&str]| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, "python3"]).arg(root.join("compat/faults/plain.py")).args(arguments);
            command
        };
        let path = file.to_string_lossy();
        let log = file.with_extension("log");
        let giver = Running::start("plain TCP", &mut python(&self.namespaces[0], &["give", "10.77.0.1", "7000", &path]), &log)?;
        until("the giver listens", Duration::from_secs(30), || std::fs::read_to_string(&log).ok()?.contains("ready").then_some(()))?;
        let said = client(&mut python(&self.namespaces[1], &["take", "10.77.0.1", "7000"]))?;
        drop(giver);
        let (bytes, seconds) = said.trim().split_once(' ').context("what plain TCP said")?;
        anyhow::ensure!(bytes.parse() == Ok(std::fs::metadata(file)?.len()), "plain TCP took {bytes} bytes");
        seconds.parse().context("seconds of plain TCP")
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

/// A peer in a namespace; its doors are reached from there alone.
struct Peer {
    running: Running,
    namespace: String,
    api: String,
    swarm: Vec<String>,
}

impl Peer {
    fn start(binary: &Path, place: &Path, namespace: &str, number: usize, name: &str) -> anyhow::Result<Peer> {
        let dir: PathBuf = place.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
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
        Ok(Peer { running, namespace: namespace.to_owned(), api, swarm })
    }

    fn client(&self, binary: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).args(["ip", "netns", "exec", &self.namespace]).arg(binary).args(arguments);
        client(command.args(["--api", &self.api]))
    }
}
