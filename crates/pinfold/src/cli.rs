//! The command line: one definition gives parser, defaults and help.

use crate::commands::moving::{DrainArgs, PeerArgs, PlanCommand, RebalanceArgs};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Many IPFS nodes that act as one.
#[derive(Debug, Parser)]
#[command(
    name = "pinfold",
    version,
    about = "Many IPFS nodes that act as one",
    long_about = "Pinfold keeps what you add on several machines, as often as you ask, repairs it when machines die, and shows why.",
    after_help = "Examples:\n  pinfold try ./photos              three peers on this machine keep a folder twice\n  pinfold up                        start a peer here (the first start makes its identity)\n  pinfold invite                    one line for another machine\n  pinfold join <invite>             start a peer there and join\n  pinfold add ./photos --copies 2   keep a folder\n  pinfold why <cid>                 who holds it, and why"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the peer of a command is.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// REST address of the peer.
    #[arg(long, value_name = "URL", env = "PINFOLD_API", default_value = "http://127.0.0.1:9094", global = true)]
    pub api: String,
    /// One JSON object a line instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Three peers on this machine keep a folder: add it, show who holds it and why.
    #[command(
        after_help = "Examples:\n  pinfold try ./photos\n  pinfold try ./photos --demo-failure      kill one holder and watch the repair\n  pinfold try ./photos --once --json       for scripts: exit 0 when every copy was read back and compared"
    )]
    Try(TryArgs),
    /// Start a peer (the first start makes identity, secret and configuration).
    #[command(
        after_help = "Examples:\n  pinfold up\n  pinfold up --dir /srv/pinfold --space 500GB --name nas1\n  pinfold up --node kubo=http://127.0.0.1:5001 --adopt pins      what `ipfs add` keeps there is kept by the cluster\n  pinfold up --api 127.0.0.1:0 --gateway 127.0.0.1:0 --cluster /ip4/127.0.0.1/tcp/0 --swarm /ip4/127.0.0.1/tcp/0 --json"
    )]
    Up(UpArgs),
    /// Join a cluster with an invite, then run as `up` does.
    #[command(
        after_help = "Examples:\n  pinfold join pinfold-invite-1.eyJ...\n  pinfold join \"$(cat invite.txt)\" --dir /srv/pinfold --name nas2"
    )]
    Join(JoinArgs),
    /// Make a one-time invite: one line for another machine.
    #[command(after_help = "Examples:\n  pinfold invite\n  pinfold invite --ttl 2h")]
    Invite {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// How long it is good for (s, m, h, d).
        #[arg(long, default_value = "24h")]
        ttl: String,
    },
    /// Add a file, a folder, or standard input (`-`), and keep it.
    #[command(
        after_help = "Examples:\n  pinfold add report.pdf\n  pinfold add ./photos --copies 2 --wait 2\n  tar c . | pinfold add - --name backup.tar --json\n  ipfs dag export <cid> | pinfold add - --format car --copies 2\n  pinfold add /home --skip-errors   keep what can be read, list the rest, exit 1\n  pinfold add disk.img --copies 2 --shard-size 64MiB      larger than any peer"
    )]
    Add(AddArgs),
    /// Write a file or folder to disk.
    #[command(after_help = "Examples:\n  pinfold get <cid>\n  pinfold get <cid>/summer -o ./summer")]
    Get {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// CID or /ipns/NAME, with a path below it.
        path: OsString,
        /// Where to; default: the last part of the path.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Print a file.
    #[command(after_help = "Examples:\n  pinfold cat <cid>\n  pinfold cat <cid>/readme.txt")]
    Cat {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// CID or /ipns/NAME, with a path below it.
        path: OsString,
    },
    /// List a folder.
    #[command(after_help = "Examples:\n  pinfold ls <cid>\n  pinfold ls <cid>/summer --json")]
    Ls {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// CID or /ipns/NAME, with a path below it.
        path: OsString,
    },
    /// Pins: what the cluster keeps.
    #[command(
        subcommand,
        after_help = "Examples:\n  pinfold pin add <cid> --copies 2 --name site\n  pinfold pin ls\n  pinfold pin update <old> <new>\n  pinfold pin rm <cid>"
    )]
    Pin(PinCommand),
    /// All pins as lines (the form of Go ipfs-cluster): out of a running peer, and into one.
    #[command(
        subcommand,
        after_help = "Examples:\n  pinfold state export -o pins.ndjson\n  pinfold state export | pinfold state import - --api http://other:9094\n  pinfold state import pins.ndjson"
    )]
    State(StateCommand),
    /// Take over a Go ipfs-cluster peer: identity, secret, trust, settings and pins. Its folder stays as it is.
    #[command(
        after_help = "Examples:\n  pinfold migrate ~/.ipfs-cluster\n  pinfold migrate ~/.ipfs-cluster --dir /srv/pinfold --state pins.ndjson\n  pinfold migrate /data/ipfs-cluster --service /opt/ipfs-cluster-service\n\nStop the Go peer first. The way back: `pinfold state export -o pins.ndjson`, `ipfs-cluster-service state import -f pins.ndjson`."
    )]
    Migrate(MigrateArgs),
    /// Take over a Kubo repository: blocks, pins with their names, the files tree, keys and settings. The repository stays as it is.
    #[command(
        after_help = "Examples:\n  pinfold migrate-kubo ~/.ipfs\n  pinfold migrate-kubo ~/.ipfs --dir /srv/pinfold --ipfs /opt/ipfs --copies 2\n  ipfs pin ls --names > pins.txt && pinfold migrate-kubo ~/.ipfs --pins pins.txt\n\nStop the Kubo daemon and the Pinfold peer first. Run again, it goes on where it stopped."
    )]
    MigrateKubo(crate::commands::migrate_kubo::MigrateKuboArgs),
    /// How the copies stand: of one CID, or of everything.
    #[command(after_help = "Examples:\n  pinfold status\n  pinfold status <cid> --json\n  pinfold status --filter error")]
    Status {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// One CID.
        cid: Option<String>,
        /// Only copies in these states (comma list: pinned, pinning, error, queued, ...).
        #[arg(long)]
        filter: Option<String>,
        /// Show the shards of large files and folders one by one.
        #[arg(long)]
        shards: bool,
    },
    /// Why a pin is where it is, and what happens next.
    #[command(after_help = "Examples:\n  pinfold why <cid>\n  pinfold why <cid> --json")]
    Why {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The CID.
        cid: String,
    },
    /// The members of the cluster.
    #[command(after_help = "Examples:\n  pinfold peers\n  pinfold peers --json")]
    Peers {
        /// The peer.
        #[command(flatten)]
        target: Target,
    },
    /// Try again at once what waits after an error.
    #[command(after_help = "Examples:\n  pinfold recover\n  pinfold recover <cid>")]
    Recover {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// One CID; default: everything.
        cid: Option<String>,
    },
    /// A mass removal that was held back for you to look at.
    #[command(subcommand, after_help = "Examples:\n  pinfold removals approve")]
    Removals(RemovalsCommand),
    /// Keys of a peer, each of which is an IPNS name.
    #[command(
        subcommand,
        after_help = "Examples:\n  pinfold key gen site\n  pinfold key list\n  pinfold key export site -o site.key      its secret half: keep it safe\n  pinfold key import site site.key --dir /srv/pinfold"
    )]
    Key(crate::commands::keys::KeyCommand),
    /// Names (IPNS, DNSLink): publish where a key's name leads, and follow names to content.
    #[command(
        subcommand,
        after_help = "Examples:\n  pinfold name publish /ipfs/<cid> --key site\n  pinfold name resolve k51...\n  pinfold name resolve docs.example.org\n  pinfold cat /ipns/docs.example.org/readme.txt"
    )]
    Name(crate::commands::names::NameCommand),
    /// Content and nodes among strangers (the DHT, routers and gateways over HTTP): who has what, and what they are told of this peer.
    #[command(
        subcommand,
        after_help = "Examples:\n  pinfold routing status\n  pinfold routing findprovs <cid>\n  pinfold routing findpeer 12D3Koo..."
    )]
    Routing(crate::commands::routing::RoutingCommand),
    /// Limits of bandwidth of a peer: up and down, local net and beyond, by day and hour.
    #[command(
        after_help = "Examples:\n  pinfold limits\n  pinfold limits set --wan-up 5MB/s\n  pinfold limits set --at \"mon-fri 08:00-18:00 wan_up=1MB/s\"\n  pinfold limits clear"
    )]
    Limits(crate::commands::limits::LimitsArgs),
    /// Read the blocks of a peer again from its disk and fetch damaged ones from others; shows how far that is.
    #[command(
        after_help = "Examples:\n  pinfold scrub                          how far it is, and what is not whole\n  pinfold scrub --start --rate 50MB/s    a round now\n  pinfold scrub --start --wait           for scripts: exit 1 when something is lost\n  pinfold scrub --stop"
    )]
    Scrub(crate::commands::scrub::ScrubArgs),
    /// Hand a peer's copies over to others; it stays a member. Shows the plan first.
    #[command(
        after_help = "Examples:\n  pinfold drain nas1 --dry-run      what it would do\n  pinfold drain nas1 --wait         until nothing is left to hand over\n  pinfold uncordon nas1             turn it back at any time"
    )]
    Drain(DrainArgs),
    /// Give a peer no new copies; what it has stays.
    #[command(after_help = "Examples:\n  pinfold cordon nas1\n  pinfold cordon self")]
    Cordon(PeerArgs),
    /// Take a peer into use again: ends a cordon, stops a drain where it is.
    #[command(after_help = "Examples:\n  pinfold uncordon nas1")]
    Uncordon(PeerArgs),
    /// Move copies until every peer has its share. Shows the plan first.
    #[command(
        after_help = "Examples:\n  pinfold rebalance --dry-run\n  pinfold rebalance\n  pinfold rebalance --stop          leave copies where they are\n  pinfold rebalance --auto          the default: by themselves, when a peer is clearly off its share (not with\n                                    `rebalance = false` in pinfold.toml)"
    )]
    Rebalance(RebalanceArgs),
    /// What a drain or a balancing would do: moves, bytes, time, the fill of each peer, what has nowhere to go.
    #[command(subcommand, after_help = "Examples:\n  pinfold plan drain nas1\n  pinfold plan rebalance --json")]
    Plan(PlanCommand),
    /// Leave the cluster: hand the copies over first, then stop.
    #[command(
        after_help = "Examples:\n  pinfold leave\n  pinfold leave --purge      also free the disk\n  pinfold leave --force      leave although some copies can go nowhere"
    )]
    Leave {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// Leave although some copies have nowhere to go; they stay only here (and are lost with --purge).
        #[arg(long)]
        force: bool,
        /// Delete the blocks and the state of this peer afterwards.
        #[arg(long)]
        purge: bool,
    },
}

/// `pinfold pin ...`
#[derive(Debug, Subcommand)]
pub enum PinCommand {
    /// Keep a CID that is somewhere in the network.
    #[command(
        after_help = "Examples:\n  pinfold pin add <cid> --copies 2 --name site --wait 2\n  pinfold pin add <cid> --owner anna --name site      kept until anna lets go, whoever else does\n  pinfold pin add <cid> --origin /ip4/203.0.113.7/tcp/4001/p2p/<id>      a node outside has it"
    )]
    Add {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// CID, /ipfs/CID/path, or /ipns/NAME/path (what it leads to at this moment).
        path: String,
        /// What is wished.
        #[command(flatten)]
        wish: Wish,
        /// Keep it for this owner, under the name that is given (default: the CID). What the name stood for before is let go.
        #[arg(long)]
        owner: Option<String>,
        /// The root block alone.
        #[arg(long)]
        direct: bool,
        /// Where a node has the content, as a multiaddr with /p2p/<id>: holders connect with it first. May be repeated.
        #[arg(long, value_name = "MULTIADDR")]
        origin: Vec<String>,
        /// Wait until so many holders confirmed.
        #[arg(long, value_name = "N")]
        wait: Option<u32>,
    },
    /// Keep it no longer.
    #[command(
        after_help = "Examples:\n  pinfold pin rm <cid>\n  pinfold pin rm <cid> --owner anna            what others keep of it stays\n  pinfold pin rm <cid> --owner anna --name site"
    )]
    Rm {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The CID.
        cid: String,
        /// Only this owner lets go.
        #[arg(long)]
        owner: Option<String>,
        /// Only under this name; default: all names of the owner for the CID.
        #[arg(long, requires = "owner")]
        name: Option<String>,
    },
    /// What is kept.
    #[command(after_help = "Examples:\n  pinfold pin ls\n  pinfold pin ls --json\n  pinfold pin ls --owner anna")]
    Ls {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// One CID.
        cid: Option<String>,
        /// Show the shards of large files and folders too.
        #[arg(long)]
        shards: bool,
        /// What is kept for this owner, by its names.
        #[arg(long, conflicts_with = "shards")]
        owner: Option<String>,
    },
    /// Replace a pin by a newer version of the same thing: the holders fetch only what is new.
    #[command(after_help = "Examples:\n  pinfold pin update <old> <new>\n  pinfold pin update <old> <new> --keep-old")]
    Update {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The pin that is replaced.
        from: String,
        /// The new one.
        to: String,
        /// Keep the old pin too.
        #[arg(long)]
        keep_old: bool,
    },
}

/// `pinfold state ...`
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Write all pins of this moment, one JSON object a line; `ipfs-cluster-service state import` reads it too.
    #[command(after_help = "Examples:\n  pinfold state export > pins.ndjson\n  pinfold state export -o pins.ndjson")]
    Export {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// Where to (default: standard output); the file appears when it is whole.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Merge pins from such lines; the peers go on meanwhile, and nothing is removed. Doing it twice is harmless.
    #[command(
        after_help = "Examples:\n  pinfold state import pins.ndjson\n  ipfs-cluster-service state export | pinfold state import -\n  pinfold state import old.ndjson --skip-bad --json"
    )]
    Import {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The file; `-` is standard input.
        file: PathBuf,
        /// Leave out lines that are no pin, and name them; otherwise the first one ends the import.
        #[arg(long)]
        skip_bad: bool,
        /// Give added pins the present time: for pins that were removed from this cluster since the export was made.
        #[arg(long)]
        renew: bool,
    },
}

/// `pinfold migrate`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The folder of the Go peer, with service.json.
    pub from: PathBuf,
    /// Data directory of the new peer; default: where `up` looks.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Its pins, as written by `ipfs-cluster-service state export`.
    #[arg(long, value_name = "FILE", conflicts_with = "no_state")]
    pub state: Option<PathBuf>,
    /// Leave the pins behind (they come from other peers, or not at all).
    #[arg(long)]
    pub no_state: bool,
    /// Go's program, which alone reads the database of a CRDT peer (default: ipfs-cluster-service, where it is installed).
    #[arg(long, value_name = "FILE")]
    pub service: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `pinfold removals ...`
#[derive(Debug, Subcommand)]
pub enum RemovalsCommand {
    /// Let it go on.
    Approve {
        /// The peer.
        #[command(flatten)]
        target: Target,
    },
}

/// What is wished with a pin.
#[derive(Debug, Clone, Default, Args)]
pub struct Wish {
    /// Copies wanted (default: the cluster's class; "all": on every peer).
    #[arg(long, value_name = "N|all")]
    pub copies: Option<String>,
    /// A label for people.
    #[arg(long)]
    pub name: Option<String>,
    /// Keep it only so long (s, m, h, d).
    #[arg(long, value_name = "DURATION")]
    pub expire_in: Option<String>,
    /// Free text pairs.
    #[arg(long, value_name = "KEY=VALUE")]
    pub meta: Vec<String>,
}

/// What `pinfold add` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// Files and folders.
    Files,
    /// A content-addressable archive, version 1 or 2.
    Car,
}

/// `pinfold add`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The peer.
    #[command(flatten)]
    pub target: Target,
    /// Files or folders; `-` is standard input.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// What is wished.
    #[command(flatten)]
    pub wish: Wish,
    /// Wait until so many holders confirmed.
    #[arg(long, value_name = "N")]
    pub wait: Option<u32>,
    /// What the input is: files to be made into blocks, or a CAR, whose blocks are made already (one root, complete).
    #[arg(long, value_enum, default_value_t = InputFormat::Files)]
    pub format: InputFormat,
    /// All import options at once, so that the CIDs are those of others: unixfs-v0-2015 (Kubo's old defaults) or unixfs-v1-2025 (the common
    /// defaults of today's implementations, IPIP-499).
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// CID version, 0 or 1 (default: 1, or the profile's).
    #[arg(long)]
    pub cid_version: Option<u8>,
    /// Chunker, as Kubo names it (default: size-262144, or the profile's).
    #[arg(long)]
    pub chunker: Option<String>,
    /// Put everything into one folder around it.
    #[arg(short, long)]
    pub wrap: bool,
    /// Leave out files and folders whose name begins with a dot.
    #[arg(long)]
    pub no_hidden: bool,
    /// Follow symbolic links below the named paths (default: they are kept as links); loops are refused.
    #[arg(short = 'L', long)]
    pub dereference: bool,
    /// Leave out what cannot be read (and sockets, pipes, devices), list it at the end and exit with 1.
    #[arg(long)]
    pub skip_errors: bool,
    /// What is larger is cut into shards of this size, each on its own holders (default 256MiB, less where peers are small).
    #[arg(long, value_name = "BYTES")]
    pub shard_size: Option<String>,
    /// Only the blocks, no pin (they are garbage at the next collection).
    #[arg(long)]
    pub no_pin: bool,
    /// Print only the last CID.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of `up`, which `join` takes too.
#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// Data directory (default: the platform's data directory).
    #[arg(long, env = "PINFOLD_DIR")]
    pub dir: Option<PathBuf>,
    /// REST door (default 127.0.0.1:9094).
    #[arg(long, value_name = "ADDR")]
    pub api: Option<String>,
    /// Gateway door (default 127.0.0.1:8080).
    #[arg(long, value_name = "ADDR")]
    pub gateway: Option<String>,
    /// IPFS proxy door (default 127.0.0.1:9095).
    #[arg(long, value_name = "ADDR")]
    pub proxy: Option<String>,
    /// Cluster addresses (default /ip4/0.0.0.0/tcp/9096); may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub cluster: Vec<String>,
    /// IPFS node addresses (default /ip4/0.0.0.0/tcp/4001 and udp/4001/quic-v1); may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub swarm: Vec<String>,
    /// A name for people (default: the host's).
    #[arg(long)]
    pub name: Option<String>,
    /// The cluster's secret, 64 hex digits (default: made at the first start). It gives no trust by itself.
    #[arg(long, value_name = "HEX", env = "PINFOLD_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// Most bytes this peer may use (500GB, 1GiB, ...; default: no limit but the disk).
    #[arg(long, value_name = "BYTES")]
    pub space: Option<String>,
    /// The node that stores the blocks: `embedded`, or a Kubo daemon as `kubo=http://[user:password@]127.0.0.1:5001` (default embedded).
    #[arg(long, value_name = "embedded|kubo=URL", env = "PINFOLD_NODE", hide_env_values = true)]
    pub node: Option<String>,
    /// What the node's own user keeps there becomes the cluster's: off, pins, or pins+mfs (default off).
    #[arg(long, value_name = "off|pins|pins+mfs")]
    pub adopt: Option<String>,
    /// Where others dial the cluster's network of this peer, instead of where it listens (a forwarded port, a name); `listened`
    /// stands for the latter. May be repeated.
    #[arg(long, value_name = "MULTIADDR|listened")]
    pub cluster_announce: Vec<String>,
    /// Where others dial its IPFS node, in the same way.
    #[arg(long, value_name = "MULTIADDR|listened")]
    pub swarm_announce: Vec<String>,
    /// Whether this peer can be dialled from outside: `auto` asks others to try; `yes` for one that others can reach, which then relays
    /// between those that cannot; `no` for one behind a NAT (default auto).
    #[arg(long, value_name = "auto|yes|no")]
    pub reachable: Option<String>,
    /// How long a silent peer is waited for before its copies are replaced (s, m, h; default 10m); twelve times as long where nobody else
    /// in reach has a copy.
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<String>,
    /// One JSON line when ready, instead of text.
    #[arg(long)]
    pub json: bool,
    /// Seconds by which this peer's clock is to be wrong (for tests of wrong clocks).
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pub clock_shift: Option<i64>,
    /// Stop when standard input is closed (for programs that start peers).
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// `pinfold join`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The line that `pinfold invite` printed.
    pub invite: String,
    /// As for `up`.
    #[command(flatten)]
    pub up: UpArgs,
}

/// `pinfold try`
#[derive(Debug, Args)]
pub struct TryArgs {
    /// The folder (or file) to keep.
    pub folder: PathBuf,
    /// Copies wanted, 1 to 3.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3))]
    pub copies: u32,
    /// End when the copies are confirmed and every byte was read back from each holder and compared.
    #[arg(long)]
    pub once: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the three peers keep their data (default: a temporary folder, removed at the end).
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Then kill one holder and show the repair until all copies exist again.
    #[arg(long)]
    pub demo_failure: bool,
}
