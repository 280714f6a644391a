//! `up` and `join`: a peer from configuration to clean stop.
//!
//! Start: settings, ports bound, stores, networks, consensus, node, machine, doors, ready. Stop is the same backwards; a second
//! signal ends the process at once.

use crate::cli::{JoinArgs, UpArgs};
use crate::config::{self, Keys, Settings};
use crate::descriptors::Descriptors;
use crate::wiring::{self, Running};
use anyhow::{Context, bail};
use peer::{Cluster, Ending};
use serde_json::json;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wire::join::Invite;

/// Doors may finish what they serve for so long.
const DRAIN: Duration = Duration::from_secs(5);
/// Name of the file that says that this directory's peer left its cluster.
const LEFT: &str = "LEFT";

/// `pinfold up`
pub async fn up(args: UpArgs) -> anyhow::Result<()> {
    let secret = args.secret.as_deref().map(config::parse_secret).transpose()?;
    run(args, secret, None).await
}

/// `pinfold join`
pub async fn join(args: JoinArgs) -> anyhow::Result<()> {
    let invite = Invite::from_line(&args.invite)?;
    let secret = invite.secret;
    run(args.up, Some(secret), Some(invite)).await
}

async fn run(args: UpArgs, secret: Option<[u8; 32]>, invite: Option<Invite>) -> anyhow::Result<()> {
    // From the first moment: a service manager may stop what it has only just started.
    let mut signals = Signals::listen()?;
    peer::clock::shift(args.clock_shift.unwrap_or(0));
    let descriptors = Descriptors::raise();
    let settings = Settings::load(&args)?;
    let left = settings.dir.join(LEFT);
    if left.exists() && invite.is_none() {
        bail!(
            "this peer left its cluster ({}): join one with `pinfold join <invite>`, or use another --dir for a new cluster",
            left.display()
        );
    }
    let bound = Bound::bind(&settings, descriptors)?;
    let keys = Keys::load_or_make(&settings.dir, secret)?;
    let running = tokio::select! {
        running = Box::pin(wiring::start(&settings, &keys, &bound, invite.as_ref())) => running?,
        () = signals.asked() => {
            eprintln!("stopped before it was up");
            return Ok(());
        }
    };
    std::fs::remove_file(&left).ok();

    let stop = CancellationToken::new();
    crate::commands::migrate::take_over(&settings.dir, &running.peer).await?;
    let doors = bound.open(&running, &stop)?;
    announce(&settings, &running, args.json).await;

    let mut ending = running.peer.ending();
    let why = tokio::select! {
        () = signals.asked() => Ending::Running,
        () = stdin_closed(args.until_stdin_closes) => Ending::Running,
        ending = ending.wait_for(|ending| *ending != Ending::Running) => ending.map_or(Ending::Running, |ending| *ending),
    };
    tokio::spawn(async move {
        signals.asked().await;
        eprintln!("stopped at once");
        std::process::exit(130);
    });
    stop.cancel();
    for door in doors {
        if tokio::time::timeout(DRAIN, door).await.is_err() {
            tracing::warn!("a door had to be closed on requests in flight");
        }
    }
    if why == (Ending::Left { purge: false }) {
        running.forget_cluster().await?;
    }
    running.stop().await;
    let dir = settings.dir.clone();
    drop(running);
    if let Ending::Left { purge } = why {
        after_leaving(&dir, purge)?;
    }
    Ok(())
}

/// The listeners, bound before anything else, so that a taken port shows in the first second.
pub struct Bound {
    api: TcpListener,
    gateway: TcpListener,
    proxy: TcpListener,
    descriptors: Descriptors,
}

impl Bound {
    fn bind(settings: &Settings, descriptors: Descriptors) -> anyhow::Result<Bound> {
        Ok(Bound {
            api: listen(&settings.api, "--api")?,
            gateway: listen(&settings.gateway, "--gateway")?,
            proxy: listen(&settings.proxy, "--proxy")?,
            descriptors,
        })
    }

    /// How many connections each of the networks may have.
    pub fn connections(&self) -> usize {
        self.descriptors.share()
    }

    /// `http://host:port` of a listener; an unspecified address is shown as loopback.
    fn url(listener: &TcpListener) -> String {
        match listener.local_addr() {
            Ok(address) if address.ip().is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
            Ok(address) => format!("http://{address}"),
            Err(_) => String::new(),
        }
    }

    /// Base URL of the REST door.
    pub fn api_url(&self) -> String {
        Bound::url(&self.api)
    }

    /// Base URL of the gateway.
    pub fn gateway_url(&self) -> String {
        Bound::url(&self.gateway)
    }

    /// Base URL of the proxy.
    pub fn proxy_url(&self) -> String {
        Bound::url(&self.proxy)
    }

    fn open(&self, running: &Running, stop: &CancellationToken) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
        let cluster: std::sync::Arc<dyn Cluster> = running.peer.clone();
        let options = |listener: &TcpListener| -> anyhow::Result<api::ServeOptions> {
            let listener = listener.try_clone().and_then(tokio::net::TcpListener::from_std).context("opening a door")?;
            let usual = api::Limits::default();
            let limits = api::Limits { connections: self.descriptors.share().min(usual.connections), ..usual };
            Ok(api::ServeOptions { limits, ..api::ServeOptions::new(listener) })
        };
        Ok(vec![
            api::rest::serve(options(&self.api)?, cluster.clone(), stop.clone()),
            api::gateway::serve(options(&self.gateway)?, cluster.clone(), stop.clone()),
            api::proxy::serve(options(&self.proxy)?, cluster, stop.clone()),
        ])
    }
}

fn listen(address: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let resolved = address.to_socket_addrs().ok().and_then(|mut found| found.next());
    let resolved = resolved.with_context(|| format!("{flag} {address}: write it as HOST:PORT, for example 127.0.0.1:0"))?;
    api::guard::check_listen(resolved, false).map_err(|error| anyhow::anyhow!("{flag} {address}: {error}"))?;
    let listener = TcpListener::bind(resolved).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            anyhow::anyhow!(
                "{flag} {address}: the port is taken by another program (or another pinfold): choose one with {flag}, 127.0.0.1:0 takes any"
            )
        } else {
            anyhow::anyhow!("{flag} {address}: {error}")
        }
    })?;
    listener.set_nonblocking(true).context("preparing a listener")?;
    Ok(listener)
}

async fn announce(settings: &Settings, running: &Running, as_json: bool) {
    let identity = running.peer.identity().await;
    let (api, gateway, proxy) = (&running.urls.0, &running.urls.1, &running.urls.2);
    std::fs::write(settings.dir.join("api"), format!("{api}\n")).ok();
    if as_json {
        let line = json!({
            "ready": true, "peer": identity.peer.to_string(), "name": identity.name, "api": api, "gateway": gateway, "proxy": proxy,
            "cluster": identity.addresses, "swarm": identity.node_addresses, "node": identity.node.map(|node| node.to_string()),
            "dir": settings.dir.display().to_string(), "joined": running.joined,
        });
        println!("{line}");
        return;
    }
    println!("pinfold {} is up as {} ({})", env!("CARGO_PKG_VERSION"), identity.name, identity.peer);
    if let Some(inviter) = &running.joined {
        println!("joined: {inviter} and {} trust each other now", identity.name);
    }
    println!("  status page and API  {api}/");
    println!("  gateway              {gateway}/ipfs/<cid>");
    println!("  IPFS API proxy       {proxy}");
    println!("  cluster              {}", identity.addresses.join(" "));
    println!("  data                 {}", settings.dir.display());
    println!("Ctrl-C stops it. Another machine joins with the line that `pinfold invite` prints.");
}

/// Ctrl-C and SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From then on neither ends the process by itself.
    pub fn listen() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Resolves when one of them comes.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// For peers that must not outlive the program that started them: its pipe closes when it ends, however it ends.
async fn stdin_closed(watched: bool) {
    if !watched {
        return std::future::pending().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        ended.send(()).ok();
    });
    end.await.ok();
}

fn after_leaving(dir: &Path, purge: bool) -> anyhow::Result<()> {
    let text = "This peer left its cluster. Join another with `pinfold join <invite>`.\n";
    config::write_private(&dir.join(LEFT), text.as_bytes())?;
    // The secret belongs to the cluster that was left; its state must not be merged into another one.
    for stale in ["secret", "api"] {
        std::fs::remove_file(dir.join(stale)).ok();
    }
    let state = dir.join("state");
    if purge {
        for folder in [dir.join("blocks"), state] {
            if folder.exists() {
                std::fs::remove_dir_all(&folder).with_context(|| format!("freeing {}", folder.display()))?;
            }
        }
    }
    Ok(())
}
