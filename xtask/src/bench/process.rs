//! Processes under measurement: CPU seconds, and an end for each that was started here.

use anyhow::{Context, bail};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clock ticks a second in `/proc`; Linux has used 100 on every machine we run on.
const TICKS: f64 = 100.0;

/// A process that ends with its value.
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts a command with its output in a log file.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Running> {
        let file = std::fs::File::create(log).with_context(|| format!("making {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Running { child, name: name.to_owned() })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds so far, user and system.
    pub fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let tick = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (tick(11) + tick(12)) / TICKS
    }

    /// Sends it a signal by its name (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().context("starting kill")?;
        if status.success() { Ok(()) } else { bail!("{} took no {name}", self.name) }
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait() {
            Ok(Some(status)) => bail!("{} ended: {status}", self.name),
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process takes no SIGTERM.
        Command::new("kill").args(["-CONT", &self.child.id().to_string()]).status().ok();
        // SIGTERM by the shell's own kill: it lets daemons remove their locks.
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// CPU seconds of this process itself.
pub fn cpu_of_this() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let tick = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (tick(11) + tick(12)) / TICKS
}

/// CPU seconds of all children of this process that have ended: what clients used.
pub fn cpu_of_ended_children() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let tick = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (tick(13) + tick(14)) / TICKS
}

/// Runs a client to its end and returns its standard output.
pub fn client(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().context("starting a client")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("a client failed: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until `check` gives something, at most so long.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if begun.elapsed() > limit {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0").context("a port")?.local_addr().context("a port")?.port())
}
