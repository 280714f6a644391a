//! The project's own tools: `cargo xtask tidy`, `cargo xtask bench NAME`, `cargo xtask check`.

mod bench;
mod tidy;

use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const HELP: &str = "cargo xtask tidy             rules of the repository (also part of .ci/run)
cargo xtask check            format, clippy with warnings denied, tidy, all tests
cargo xtask bench heal       a holder is lost: time until repair begins and ends, 2,500 pins on four peers
cargo xtask bench wire       joining, meeting again and idling among Pinfold peers; bursts and joins among Go peers
cargo xtask bench spread     even spread by bytes, and what moves when a peer joins or is drained
cargo xtask bench plan       plans over a million pins
cargo xtask bench slice      adds on one peer and on three, beside Kubo and Go where PINFOLD_PEERS names their folder
                             [--anyway] [--repeat N] [--mib N] [--files N] [--out FILE]
cargo xtask bench car        a CAR of one large file imported, beside Kubo and Go likewise [the options of slice]
cargo xtask bench node       ten million small blocks in the store: put, get, memory, opening (also after kill -9), half of them collected
                             [--anyway] [--repeat N] [--blocks N] [--out FILE] (3 GB of disk)
cargo xtask bench million    a million pins on one peer and on three: load, memory, disk, restart, lists; Go's import and export beside it
                             [--anyway] [--pins N] [--settle SECONDS] [--out FILE]
cargo xtask bench pins       pins accepted and durable, bursts, calls while a peer is stopped; beside Go where PINFOLD_PEERS names its folder
                             [--anyway] [--repeat N] [--seconds N] [--only rates|rates1|rates3|burst|stopped] [--out FILE]
                             (PINFOLD_BIN names a binary that is built already)";

fn run(arguments: &[String]) -> anyhow::Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy::run(&root()?),
        ["check"] => check(),
        ["bench", name, rest @ ..] => bench::run(&root()?, name, rest),
        _ => {
            println!("{HELP}");
            if arguments.is_empty() || arguments[0].contains("help") { Ok(()) } else { bail!("unknown task {:?}", arguments.join(" ")) }
        }
    }
}

/// The repository's root: where the workspace manifest is.
fn root() -> anyhow::Result<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).context("finding the repository")
}

fn check() -> anyhow::Result<()> {
    let steps: [&[&str]; 4] = [
        &["fmt", "--all", "--check"],
        &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        &["xtask", "tidy"],
        &["test", "--workspace"],
    ];
    for step in steps {
        let status = Command::new("cargo").args(step).current_dir(root()?).status().context("starting cargo")?;
        if !status.success() {
            bail!("cargo {} failed", step.join(" "));
        }
    }
    Ok(())
}
