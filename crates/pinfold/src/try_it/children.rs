//! The peers of a trial: child processes that end with their parent.

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdin, Command};

/// A peer may take so long until it is ready.
const READY: Duration = Duration::from_secs(60);
/// A stopping peer may take so long before it is killed.
const STOP: Duration = Duration::from_secs(15);
/// In a trial a silent peer is given up soon, so that `--demo-failure` shows something.
const GRACE: &str = "3s";

/// Where the peers keep their data; a temporary one is removed at the end.
pub struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    /// The named folder, or a temporary one.
    pub fn new(named: Option<PathBuf>) -> anyhow::Result<Folder> {
        let (path, is_temporary) = match named {
            Some(path) => (path, false),
            None => (std::env::temp_dir().join(format!("pinfold-try-{}", std::process::id())), true),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Folder { path, is_temporary })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// One running peer.
pub struct Child {
    /// Its name.
    pub name: String,
    /// Its peer id.
    pub id: String,
    /// REST URL.
    pub api: String,
    /// Gateway URL.
    pub gateway: String,
    process: tokio::process::Child,
    /// Closing it stops the peer.
    stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts a peer, by invite if there is one, and waits until it is ready.
    pub async fn start(folder: &Folder, name: &str, invite: Option<&str>) -> anyhow::Result<Child> {
        let own = std::env::current_exe().context("finding this program")?;
        let log = folder.path.join(format!("{name}.log"));
        let errors = std::fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = Command::new(own);
        match invite {
            Some(invite) => command.arg("join").arg(invite),
            None => command.arg("up"),
        };
        command.arg("--dir").arg(folder.path.join(name)).args(["--name", name, "--grace", GRACE, "--json", "--until-stdin-closes"]);
        for door in ["--api", "--gateway", "--proxy"] {
            command.args([door, "127.0.0.1:0"]);
        }
        command.args(["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]);
        // A group of its own: Ctrl-C in the terminal must not reach it before the parent has asked it to stop.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true);
        let mut process = command.spawn().context("starting a peer")?;
        let stdout = process.stdout.take().context("reading from a peer")?;
        let stdin = process.stdin.take();
        let mut line = String::new();
        let read = tokio::time::timeout(READY, BufReader::new(stdout).read_line(&mut line)).await;
        let ready: Value = match read {
            Ok(Ok(length)) if length > 0 => serde_json::from_str(&line).with_context(|| format!("reading what {name} said: {line:?}"))?,
            _ => {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("peer {name} did not start: {}", said.lines().last().unwrap_or("it said nothing"));
            }
        };
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        Ok(Child { name: name.to_owned(), id: text("peer"), api: text("api"), gateway: text("gateway"), process, stdin })
    }

    /// Kills it, as a power cut would.
    pub async fn kill(&mut self) {
        self.process.kill().await.ok();
    }

    /// Stops it cleanly; kills it if it takes too long.
    pub async fn stop(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(STOP, self.process.wait()).await.is_err() {
            self.process.kill().await.ok();
        }
    }
}
