//! Clusters made and joined: invites, secrets, mistakes.

mod common;

use common::{Peer, holders, http, meet, noise, until, up_count};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn both_sides_trust_each_other_after_a_join_and_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    assert_eq!(two.ready["joined"], "one");
    let peers = [one, two];
    meet(&peers);
    // A third peer invited by the second is trusted by the first too.
    let three = Peer::join(folder.path(), "three", &peers[1].invite());
    let [one, two] = peers;
    meet(&[one, two, three]);
}

#[test]
fn a_peer_says_how_it_is_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = Peer::try_start(folder.path(), "odd", &["up"], &["--reachable", "perhaps"]).err().expect("refused");
    assert!(said.contains("auto, yes or no"), "{said}");
    let one = Peer::start(folder.path(), "one", &["up"], &["--reachable", "yes"]);
    let two = Peer::start(folder.path(), "two", &["join", &one.invite()], &["--reachable", "no"]);
    let rows = |peer: &Peer| -> Vec<serde_json::Value> {
        peer.say(&["peers", "--json"]).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let ways = until("a seat at the one that can be dialled", Duration::from_secs(60), || {
        let rows = rows(&two);
        (rows[0]["way"]["words"] == "behind a NAT; reached through one" && rows.len() == 2).then_some(rows)
    });
    assert_eq!((&ways[1]["way"]["kind"], &ways[1]["way"]["words"]), (&"direct".into(), &"direct".into()));
    assert_eq!(ways[0]["way"]["cluster"]["relays"], serde_json::json!([one.ready["peer"]]));
    until("its node too", Duration::from_secs(60), || (rows(&two)[0]["way"]["node"]["relays"].as_array()?.len() == 1).then_some(()));
    let own = &rows(&one)[0]["way"];
    assert_eq!((&own["words"], &own["cluster"]["is_relay"]), (&"can be dialled".into(), &true.into()));
    assert!(two.say(&["peers"]).contains("behind a NAT; reached through one"));
}

/// What a router does that forwards a port: passes connections on, and counts them here.
struct Forwarder {
    address: String,
    passed: Arc<AtomicUsize>,
}

impl Forwarder {
    /// To a multiaddr on loopback.
    fn to(target: &str) -> Forwarder {
        let port: u16 = target.rsplit('/').next().expect("a port").parse().expect("a port");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().expect("bound").port());
        let passed = Arc::new(AtomicUsize::new(0));
        let count = passed.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    std::thread::spawn(move || {
                        std::io::copy(&mut from, &mut to).ok();
                        to.shutdown(std::net::Shutdown::Both).ok();
                    });
                }
            }
        });
        Forwarder { address, passed }
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }
}

#[test]
fn a_peer_is_joined_and_its_blocks_are_fetched_where_it_announces() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = Peer::try_start(folder.path(), "odd", &["up"], &["--cluster-announce", "/ip4/0.0.0.0/tcp/9096"]).err().expect("refused");
    assert!(said.contains("no place that can be dialled"), "{said}");
    let before = Peer::up(folder.path(), "one");
    let own = before.same_addresses();
    before.terminate();
    let [_, cluster_at, _, swarm_at] = &own[..] else { panic!("{own:?}") };
    let (cluster, swarm) = (Forwarder::to(cluster_at), Forwarder::to(swarm_at));

    let both: Vec<&str> =
        own.iter().map(String::as_str).chain(["--cluster-announce", "listened", "--cluster-announce", &cluster.address]).collect();
    let one = Peer::start(folder.path(), "one", &["up"], &both);
    let told = |one: &Peer, at: &[&str]| at.iter().map(|address| format!("{address}/p2p/{}", one.id())).collect::<Vec<_>>();
    assert_eq!(one.ready["cluster"], serde_json::json!(told(&one, &[cluster_at, &cluster.address])), "both where that is said");
    one.terminate();

    let instead: Vec<&str> =
        own.iter().map(String::as_str).chain(["--cluster-announce", &cluster.address, "--swarm-announce", &swarm.address]).collect();
    let one = Peer::start(folder.path(), "one", &["up"], &instead);
    assert_eq!(one.ready["cluster"], serde_json::json!(told(&one, &[&cluster.address])), "instead of where it listens");
    let two = Peer::join(folder.path(), "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    let [one, two] = peers;
    let joined = cluster.passed();
    assert!(joined > 0, "joined elsewhere");
    let rows: Vec<serde_json::Value> =
        two.say(&["peers", "--json"]).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let row = rows.iter().find(|row| row["peer"] == one.id()).expect("a row");
    assert_eq!(row["node_addresses"], serde_json::json!(one.ready["swarm"]), "what a member knows leads there, too");

    // It comes back at other ports, which nobody knows: so it is the one that dials.
    two.terminate();
    let data = noise(3_000_000, 7);
    std::fs::write(folder.path().join("data"), &data).expect("written");
    let cid = one.say(&["add", "--quiet", "--copies", "1", &folder.path().join("data").to_string_lossy()]).trim().to_owned();
    let fetched = swarm.passed();
    // Its node names a place where nobody listens, so it dials there, too.
    let peers = [one, Peer::start(folder.path(), "two", &["up"], &["--swarm-announce", "/ip4/127.0.0.1/tcp/1"])];
    meet(&peers);
    assert!(cluster.passed() > joined, "met again elsewhere");
    assert_eq!(holders(&peers[0], &cid), ["one"]);
    let read = http(peers[1].gateway(), "GET", &format!("/ipfs/{cid}"), &[], b"");
    assert!(read == (200, data), "read by way of the other");
    assert!(swarm.passed() > fetched, "fetched elsewhere");
}

#[test]
fn an_invite_is_good_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let invite = one.invite();
    let _two = Peer::join(folder.path(), "two", &invite);
    let said = Peer::try_start(folder.path(), "three", &["join", &invite], &[]).err().expect("refused");
    assert!(said.contains("was used already") && said.contains("pinfold invite"), "{said}");
}

#[test]
fn damaged_and_expired_invites_are_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let invite = one.invite();
    let said = Peer::try_start(folder.path(), "two", &["join", &invite[..invite.len() - 7]], &[]).err().expect("refused");
    assert!(said.contains("this is no invite"), "{said}");
    let short = one.say(&["invite", "--ttl", "1s"]).trim().lines().last().expect("a line").to_owned();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let said = Peer::try_start(folder.path(), "two", &["join", &short], &[]).err().expect("refused");
    assert!(said.contains("expired"), "{said}");
}

#[test]
fn the_secret_alone_gives_no_trust() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "5a".repeat(32);
    let one = Peer::start(folder.path(), "one", &["up"], &["--secret", &secret]);
    let stranger = Peer::start(folder.path(), "stranger", &["up"], &["--secret", &secret]);
    // It can be invited into nothing by itself: each sees only itself, and a pin of one never shows at the other.
    let file = folder.path().join("file");
    std::fs::write(&file, b"mine").expect("written");
    let root = stranger.json(&["add", file.to_str().expect("a path"), "--json"])["cid"].as_str().expect("a root").to_owned();
    assert_eq!((up_count(&one), up_count(&stranger)), (1, 1));
    assert!(!one.say(&["pin", "ls"]).contains(&root));
}

#[test]
fn another_secret_for_the_same_directory_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    Peer::start(folder.path(), "one", &["up"], &["--secret", &"5a".repeat(32)]).terminate();
    let said = Peer::try_start(folder.path(), "one", &["up"], &["--secret", &"5b".repeat(32)]).err().expect("refused");
    assert!(said.contains("another secret"), "{said}");
}

#[test]
fn a_taken_port_and_a_taken_directory_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let taken = one.api().trim_start_matches("http://").to_owned();
    let said = Peer::try_start(folder.path(), "two", &["up"], &["--api", &taken]).err().expect("refused");
    assert!(said.contains("--api") && said.contains("taken"), "{said}");
    let said = Peer::try_start(folder.path(), "one", &["up"], &[]).err().expect("refused");
    assert!(said.contains("in use") || said.contains("another process") || said.contains("lock"), "{said}");
    let said = Peer::try_start(folder.path(), "three", &["up"], &["--api", "0.0.0.0:0"]).err().expect("refused");
    assert!(said.contains("loopback") || said.contains("credentials"), "{said}");
}

#[test]
fn sigterm_stops_cleanly_and_a_restart_keeps_the_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let id = one.id().to_owned();
    assert_eq!(one.terminate(), Some(0));
    assert_eq!(Peer::up(folder.path(), "one").id(), id);
}

#[test]
fn a_peer_whose_state_was_lost_lets_nothing_go_and_gets_it_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = common::three(folder.path());
    let file = folder.path().join("file.bin");
    std::fs::write(&file, common::noise(500_000, 5)).expect("written");
    let added = peers[0].json(&["add", file.to_str().expect("a path"), "--copies", "3", "--wait", "3", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    let mut peers = peers.into_iter();
    let (one, two, three) = (peers.next().expect("one"), peers.next().expect("two"), peers.next().expect("three"));
    let dir = three.dir.clone();
    assert_eq!(three.terminate(), Some(0));
    // The state is gone (an empty backup was restored); identity, secret and blocks are there.
    std::fs::remove_dir_all(dir.join("state")).expect("removed");
    let three = Peer::join(folder.path(), "three", &one.invite());
    let peers = [one, two, three];
    meet(&peers);
    common::until("all three hold it again", std::time::Duration::from_secs(60), || {
        (common::holders(&peers[2], &root).len() == 3).then_some(())
    });
    assert!(peers[0].say(&["pin", "ls"]).contains(&root));
    let (status, body) = common::http(peers[2].gateway(), "GET", &format!("/ipfs/{root}"), &[("Cache-Control", "only-if-cached")], b"");
    assert_eq!((status, body == common::noise(500_000, 5)), (200, true));
}

/// An invite with something else in it.
fn changed(invite: &str, change: impl FnOnce(&mut wire::join::Invite)) -> String {
    let mut read = wire::join::Invite::from_line(invite).expect("an invite");
    change(&mut read);
    read.to_line()
}

#[test]
fn wrong_invites_are_refused_in_words_and_use_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let other = Peer::up(folder.path(), "other");
    let invite = one.invite();
    let refused = |name: &str, line: &str| Peer::try_start(folder.path(), name, &["join", line], &[]).err().expect("refused");
    for garbage in ["", "pinfold-invite-1.", "pinfold-invite-1.AAAA", "hello", "pinfold-invite-1.\u{ff}", &"x".repeat(20_000), &invite[1..]]
    {
        let said = refused("two", garbage);
        assert!(said.contains("this is no invite"), "{garbage:?}: {said}");
    }
    assert!(!folder.path().join("two").join("secret").exists(), "nothing was made of garbage");
    // Another secret; a token that was never given; a peer that is not there; a peer of another cluster under this one's id.
    let said = refused("a", &changed(&invite, |invite| invite.secret[0] ^= 1));
    assert!(said.contains("another private network") || said.contains("secret"), "{said}");
    let said = refused("b", &changed(&invite, |invite| invite.token[0] ^= 1));
    assert!(said.contains("unknown or was used already") && said.contains("pinfold invite"), "{said}");
    let said = refused("c", &changed(&invite, |invite| invite.addresses = vec!["/ip4/127.0.0.1/tcp/1".to_owned()]));
    assert!(said.contains("does not answer at any of its addresses") && said.contains("is it running"), "{said}");
    let elsewhere = wire::join::Invite::from_line(&other.invite()).expect("an invite");
    let said = refused("d", &changed(&invite, |invite| invite.addresses = elsewhere.addresses.clone()));
    assert!(said.contains("does not answer"), "{said}");
    // To itself, and into a directory that belongs to another cluster.
    let addresses = other.same_addresses();
    let own = other.invite();
    assert_eq!(other.terminate(), Some(0));
    let said = refused("other", &own);
    assert!(said.contains("this very peer"), "{said}");
    let said = refused("other", &invite);
    assert!(said.contains("another --dir") && said.contains("pinfold leave"), "{said}");
    let other = Peer::again(folder.path(), "other", &addresses);
    assert_eq!(up_count(&other), 1, "it is as it was");
    // After all that the invite is good.
    let two = Peer::join(folder.path(), "two", &invite);
    meet(&[one, two]);
}

#[test]
fn taken_network_ports_are_named_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let addresses = one.same_addresses();
    for (flag, address) in [(&addresses[0], &addresses[1]), (&addresses[2], &addresses[3])] {
        let said = Peer::try_start(folder.path(), "two", &["up"], &[flag, address]).err().expect("refused");
        assert!(said.contains(address.as_str()) && said.contains("taken") && said.contains(flag.as_str()), "{said}");
    }
    let taken = one.gateway().trim_start_matches("http://").to_owned();
    let said = Peer::try_start(folder.path(), "two", &["up"], &["--gateway", &taken]).err().expect("refused");
    assert!(said.contains("--gateway") && said.contains("taken"), "{said}");
    assert_eq!(up_count(&one), 1, "who was there first goes on");
}

#[test]
fn who_cannot_hand_its_copies_over_stays_and_says_why_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    let file = folder.path().join("file");
    std::fs::write(&file, b"the only copy").expect("written");
    let added = peers[0].json(&["add", file.to_str().expect("a path"), "--copies", "1", "--wait", "1", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    let holder = common::holders(&peers[0], &root);
    let [one, two] = peers;
    let (mut keeper, other) = if holder == ["one"] { (one, two) } else { (two, one) };
    let silent = other.name.clone();
    other.kill();
    common::until("it is missed", std::time::Duration::from_secs(60), || (up_count(&keeper) == 1).then_some(()));
    let refused = keeper.run(&["leave", "--purge"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("this peer stays") && said.contains(&format!("{silent} is silent")) && said.contains("--force"), "{said}");
    assert_eq!(keeper.say(&["cat", &root]), "the only copy");
    std::fs::write(&file, b"it takes new ones too").expect("written");
    keeper.say(&["add", file.to_str().expect("a path"), "--copies", "1"]);
    let left = keeper.json(&["leave", "--force", "--json"]);
    assert_eq!(left["stranded"], 2, "{left}");
    assert_eq!(keeper.ended(std::time::Duration::from_secs(60)), Some(0));
    assert!(keeper.dir.join("blocks").exists(), "what could go nowhere stays on its disk");
}
