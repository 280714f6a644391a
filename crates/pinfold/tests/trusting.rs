//! Pinfold peers that trust each other by configuration alone, as Go peers do: each was migrated by itself, say.

mod common;

use common::{Peer, until};
use std::path::Path;
use std::time::Duration;

const SECRET: &str = "3b1f0f9d5a7c4e2688d1c0b3a2f4e6d8091a2b3c4d5e6f708192a3b4c5d6e7f8";
const LIMIT: Duration = Duration::from_secs(60);

fn start(folder: &Path, name: &str, trusted: &str, flags: &[&str]) -> Peer {
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir).expect("made");
    std::fs::write(dir.join("pinfold.toml"), format!("trusted_peers = [{trusted:?}]\n")).expect("written");
    Peer::start(folder, name, &["up"], &[&["--secret", SECRET], flags].concat())
}

/// Whether it shows the other as a member that is there.
fn sees(peer: &Peer, other: &Peer) -> bool {
    let said = peer.say(&["peers", "--json"]);
    let rows = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    rows.into_iter().any(|row| row["peer"] == other.id() && row["health"] == "up" && row["kind"] != "go")
}

#[test]
fn peers_that_name_each_other_are_members_without_an_invite() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = start(folder.path(), "one", "*", &[]);
    let address = one.ready["cluster"][0].as_str().expect("an address").to_owned();
    let two = start(folder.path(), "two", &address, &[]);
    let both = |one: &Peer| (sees(one, &two) && sees(&two, one)).then_some(());
    until("both see each other as members", LIMIT, || both(&one));
    std::fs::write(folder.path().join("data"), "kept by both").expect("written");
    let cid = two.say(&["add", "--quiet", "--copies", "2", &folder.path().join("data").to_string_lossy()]).trim().to_owned();
    // It is pinned once the other has written it down; this one hears of it a moment later.
    let confirmed = || serde_json::from_slice::<serde_json::Value>(&one.run(&["why", &cid, "--json"]).stdout).ok();
    until("both hold it", LIMIT, || (confirmed()?["confirmed"] == 2).then_some(()));
    let again = one.same_addresses();
    one.terminate();
    let flags: Vec<&str> = again.iter().map(String::as_str).collect();
    let one = start(folder.path(), "one", "*", &flags);
    until("after a restart too", LIMIT, || both(&one));
}

#[test]
fn a_peer_that_is_not_named_back_is_no_member() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = start(folder.path(), "one", "12D3KooWEmVZaeSx9U4c7FmrWRbXx6ZGGWhvSifwCSbY54u5mQkH", &[]);
    let address = one.ready["cluster"][0].as_str().expect("an address").to_owned();
    let two = start(folder.path(), "two", &address, &[]);
    until("the log says what to change", LIMIT, || {
        let log = std::fs::read_to_string(folder.path().join("two.log")).unwrap_or_default();
        log.contains(&format!("put {} into its `trusted_peers`", two.id())).then_some(())
    });
    assert!(!sees(&one, &two) && !sees(&two, &one));
}
