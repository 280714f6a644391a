//! `pinfold key`: making, listing, renaming and removing go through the peer; importing and exporting work on the files of its data
//! directory, so that no secret passes a door.

use crate::cli::Target;
use crate::client::{Client, escape};
use crate::{config, names, output};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use peer::names::KeyInfo;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `pinfold key ...`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make an ed25519 key.
    #[command(after_help = "Examples:\n  pinfold key gen site")]
    Gen {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// What to call it.
        key: String,
    },
    /// All keys of the peer with their IPNS names; `self` is the identity of its node.
    #[command(visible_alias = "ls", after_help = "Examples:\n  pinfold key list\n  pinfold key list --json")]
    List {
        /// The peer.
        #[command(flatten)]
        target: Target,
    },
    /// Call a key otherwise.
    #[command(after_help = "Examples:\n  pinfold key rename site blog")]
    Rename {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The key.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Remove a key for good: without a copy of it its name can never be published again.
    #[command(after_help = "Examples:\n  pinfold key export site -o site.key && pinfold key rm site")]
    Rm {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The key.
        key: String,
    },
    /// Write a key's secret half to a file that only you can read (Kubo's form, or PEM).
    #[command(after_help = "Examples:\n  pinfold key export site -o site.key\n  pinfold key export site --format pem -o site.pem")]
    Export(ExportArgs),
    /// Take a key from a file: what `ipfs key export` or `pinfold key export` wrote, or an ed25519 key in PEM.
    #[command(after_help = "Examples:\n  pinfold key import site site.key\n  pinfold key import site site.pem --dir /srv/pinfold")]
    Import(ImportArgs),
}

/// Of the files of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The protobuf of libp2p's private keys, in clear.
    Libp2p,
    /// PKCS #8 in PEM, in clear; of ed25519 keys.
    Pem,
}

/// `pinfold key export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The key.
    pub key: String,
    /// Where to; default: <key>.key or <key>.pem.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// In which form.
    #[arg(long, value_enum, default_value_t = Format::Libp2p)]
    pub format: Format,
    /// Data directory of the peer; default: where `up` looks.
    #[arg(long, env = "PINFOLD_DIR")]
    pub dir: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `pinfold key import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What to call it.
    pub key: String,
    /// The file.
    pub file: PathBuf,
    /// Data directory of the peer; default: where `up` looks.
    #[arg(long, env = "PINFOLD_DIR")]
    pub dir: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `pinfold key`
pub async fn run(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Gen { target, key } => {
            let made = Client::new(&target.api)?.json(Method::POST, &path(&key)).await?.unwrap_or_default();
            say(&made, target.json, || format!("{}  {}", output::text(&made["name"]), output::text(&made["key"])));
        }
        KeyCommand::List { target } => {
            let answer = Client::new(&target.api)?.json(Method::GET, "/pinfold/v1/keys").await?.unwrap_or_default();
            list(&answer, target.json);
        }
        KeyCommand::Rename { target, from, to } => {
            let renamed = format!("{}/rename?to={}", path(&from), escape(&to));
            Client::new(&target.api)?.json(Method::POST, &renamed).await?;
            say(&json!({ "key": to, "was": from }), target.json, || format!("{from} is called {to} from now on"));
        }
        KeyCommand::Rm { target, key } => {
            Client::new(&target.api)?.json(Method::DELETE, &path(&key)).await?;
            say(&json!({ "removed": key }), target.json, || format!("{key} is removed"));
        }
        KeyCommand::Export(args) => export(&args)?,
        KeyCommand::Import(args) => {
            let made = import(&args)?;
            let name = wire::ipns::name_text(&made.name);
            say(&json!({ "key": made.key, "name": name, "type": made.kind }), args.json, || format!("{name}  {}", made.key));
        }
    }
    Ok(())
}

fn path(key: &str) -> String {
    format!("/pinfold/v1/keys/{}", escape(key))
}

fn say(value: &Value, as_json: bool, text: impl FnOnce() -> String) {
    if as_json {
        output::json_line(value);
    } else {
        println!("{}", text());
    }
}

fn list(answer: &Value, as_json: bool) {
    let keys = answer["keys"].as_array().cloned().unwrap_or_default();
    if as_json {
        keys.iter().for_each(output::json_line);
        return;
    }
    let row =
        |key: &Value| vec![output::shown(output::text(&key["key"]).as_bytes()), output::text(&key["type"]), output::text(&key["name"])];
    output::table(&["KEY", "TYPE", "NAME"], &keys.iter().map(row).collect::<Vec<_>>());
}

/// A data directory that a peer has used.
fn directory(dir: &Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let dir = match dir {
        Some(dir) => dir.clone(),
        None => config::default_dir()?,
    };
    if !dir.join("identity.json").exists() {
        bail!("{} is no data directory of a peer: name it with --dir, or start the peer once with `pinfold up`", dir.display());
    }
    Ok(dir)
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let keys = names::keystore(&directory(&args.dir)?, None);
    let bytes = keys.export(&args.key)?;
    let (bytes, ending) = match args.format {
        Format::Libp2p => (bytes, "key"),
        Format::Pem => {
            // Type 1 with 64 bytes: the seed and the public half.
            let seed = bytes.strip_prefix(&[0x08, 0x01, 0x12, 0x40]).and_then(|key| key.first_chunk::<32>());
            let seed =
                seed.with_context(|| format!("{} is no ed25519 key: only those are written as PEM, use --format libp2p", args.key))?;
            (wire::ipns::pem_from_seed(seed).into_bytes(), "pem")
        }
    };
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.{ending}", args.key)));
    write_new(&output, &bytes)?;
    let value = json!({ "key": args.key, "file": output.display().to_string() });
    say(&value, args.json, || format!("{} is in {}: whoever has this file can publish its name", args.key, output.display()));
    Ok(())
}

/// Readable by its owner alone, and never over another file.
fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("making {}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("writing {}", path.display()))
}

fn import(args: &ImportArgs) -> anyhow::Result<KeyInfo> {
    let keys = names::keystore(&directory(&args.dir)?, None);
    let length = std::fs::metadata(&args.file).with_context(|| format!("reading {}", args.file.display()))?.len();
    if length > net::keys::KEY_BYTES_MAX as u64 {
        bail!("{} is {length} bytes long: that is no key", args.file.display());
    }
    let bytes = std::fs::read(&args.file).with_context(|| format!("reading {}", args.file.display()))?;
    if bytes.starts_with(b"-----BEGIN") {
        let seed =
            wire::ipns::seed_from_pem(&String::from_utf8_lossy(&bytes)).with_context(|| format!("reading {}", args.file.display()))?;
        return Ok(keys.import_seed(&args.key, seed)?);
    }
    Ok(keys.import(&args.key, &bytes)?)
}
