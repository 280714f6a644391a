//! Keys, IPNS names and DNSLinks, with real peers: what one publishes, all answer for.

mod common;

use common::{Peer, http, meet, until};
use serde_json::Value;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A folder with one file, kept by so many peers: its root.
fn add_copies(peer: &Peer, folder: &Path, name: &str, content: &str, copies: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, content).expect("written");
    peer.json(&["add", "--wrap", file.to_str().expect("a path"), "--copies", copies, "--json"])["cid"].as_str().expect("a root").to_owned()
}

fn add(peer: &Peer, folder: &Path, name: &str, content: &str) -> String {
    add_copies(peer, folder, name, content, "2")
}

fn read(peer: &Peer, path: &str) -> (u16, String) {
    let (status, body) = http(peer.gateway(), "GET", path, &[], b"");
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn shows(peer: &Peer, path: &str, content: &str) {
    until(&format!("{} shows {content:?} at {path}", peer.name), SOON, || (read(peer, path) == (200, content.to_owned())).then_some(()));
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

/// What a command said on standard error; it must have failed with this code.
fn refused(peer: &Peer, arguments: &[&str], code: i32) -> String {
    let output = peer.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// Two peers that see each other.
fn pair(folder: &Path) -> [Peer; 2] {
    let one = Peer::up(folder, "one");
    let two = Peer::join(folder, "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    peers
}

#[test]
fn what_one_peer_publishes_all_answer_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = pair(folder.path());

    let name = text(&one.json(&["key", "gen", "site", "--json"]), "name");
    let keys = folder.path().join("one/keys");
    let file = std::fs::read_dir(&keys).expect("a folder").next().expect("a key").expect("an entry");
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let first = add(&one, folder.path(), "page", "first");
    let published = one.json(&["name", "publish", &format!("/ipfs/{first}"), "--key", "site", "--json"]);
    assert_eq!((text(&published, "name"), published["sequence"].as_u64()), (name.clone(), Some(0)));
    let path = format!("/ipns/{name}/page");
    assert_eq!(read(&one, &path), (200, "first".to_owned()), "at once where it was published");
    shows(&two, &path, "first");

    let second = add(&one, folder.path(), "page", "second");
    one.say(&["name", "publish", &second, "--key", "site"]);
    assert_eq!(read(&one, &path).1, "second");
    shows(&two, &path, "second");
    assert_eq!(two.say(&["cat", &path]), "second");
    assert!(two.say(&["ls", &format!("/ipns/{name}")]).contains("page"));
    let back = folder.path().join("back");
    two.say(&["get", &path, "-o", back.to_str().expect("a path")]);
    assert_eq!(std::fs::read_to_string(back).expect("read"), "second");
    let pinned = two.json(&["pin", "add", &format!("/ipns/{name}"), "--copies", "2", "--json"]);
    assert_eq!(text(&pinned, "cid"), second, "what it leads to");
    assert_eq!(two.say(&["name", "resolve", "--recursive", &name]).trim(), format!("/ipfs/{second}"));
    let resolved = two.json(&["name", "resolve", &format!("/ipns/{name}/page"), "--json"]);
    assert_eq!((text(&resolved, "path"), text(&resolved["steps"][0], "from")), (format!("/ipfs/{second}/page"), "cluster".to_owned()));

    // The record itself, from the other peer's gateway: it proves itself, and nobody can change it.
    let (status, record) = http(two.gateway(), "GET", &format!("/ipns/{name}?format=ipns-record"), &[], b"");
    assert_eq!(status, 200);
    let good = folder.path().join("good.record");
    std::fs::write(&good, &record).expect("written");
    let mut changed = record.clone();
    let at = record.windows(4).position(|window| window == b"/ipf").expect("a value") + 8;
    changed[at] ^= 1;
    let bad = folder.path().join("bad.record");
    std::fs::write(&bad, changed).expect("written");
    let said = refused(&two, &["name", "put", &name, bad.to_str().expect("a path")], 2);
    assert!(said.contains("ipns record"), "{said}");
    let other = text(&two.json(&["key", "gen", "other", "--json"]), "name");
    let said = refused(&two, &["name", "put", &other, good.to_str().expect("a path")], 2);
    assert!(said.contains("signature is wrong"), "{said}");
    assert!(read(&two, &format!("/ipns/{other}")).1.contains("no record of"), "nothing was taken");

    // Both are killed and come back: the name is still there, and is still counted on from.
    let addresses = (one.same_addresses(), two.same_addresses());
    one.kill();
    two.kill();
    let two = Peer::again(folder.path(), "two", &addresses.1);
    assert_eq!(text(&two.json(&["name", "resolve", &name, "--json"]), "path"), format!("/ipfs/{second}"), "without the publisher");
    let one = Peer::again(folder.path(), "one", &addresses.0);
    shows(&two, &path, "second");
    let third = one.json(&["name", "publish", &first, "--key", "site", "--json"]);
    assert_eq!(third["sequence"].as_u64(), Some(2));
    shows(&two, &path, "first");
    let listed = one.json(&["name", "ls", "--json"]);
    assert_eq!((text(&listed, "key"), listed["ended"].as_bool()), ("site".to_owned(), Some(false)));
}

#[test]
fn records_end_and_are_renewed_by_who_has_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = pair(folder.path());
    let root = add(&one, folder.path(), "page", "content");
    let kept = text(&one.json(&["key", "gen", "kept", "--json"]), "name");
    let removed = text(&one.json(&["key", "gen", "removed", "--json"]), "name");
    for key in ["kept", "removed"] {
        one.say(&["name", "publish", &root, "--key", key, "--lifetime", "6s"]);
    }
    let (kept_page, removed_page) = (format!("/ipns/{kept}/page"), format!("/ipns/{removed}/page"));
    shows(&two, &kept_page, "content");
    shows(&two, &removed_page, "content");
    one.say(&["key", "rm", "removed"]);
    // Nobody can renew it, and no peer believes it any more; the other one goes on.
    until("the record of the removed key ends", SOON, || (read(&two, &removed_page).0 != 200).then_some(()));
    let (status, said) = read(&two, &removed_page);
    assert!(matches!(status, 404 | 502) && said.contains(&removed), "{status} {said}");
    let ended = one.json(&["name", "resolve", &kept, "--json"])["steps"][0]["validity"].clone();
    until("the record of the kept key is renewed", SOON, || {
        let renewed = two.json(&["name", "resolve", &kept, "--json"])["steps"][0]["validity"].clone();
        (renewed.as_str() > ended.as_str()).then_some(())
    });
    assert_eq!(read(&two, &kept_page), (200, "content".to_owned()));

    // A record of 48 h whose publisher was away for three days: the others do not believe it until it is back.
    let own = text(&one.json(&["name", "publish", &root, "--json"]), "name");
    let own_page = format!("/ipns/{own}/page");
    shows(&two, &own_page, "content");
    let addresses = (one.same_addresses(), two.same_addresses());
    assert_eq!((one.terminate(), two.terminate()), (Some(0), Some(0)));
    let later = |name: &str, addresses: &[String]| {
        let mut flags: Vec<&str> = addresses.iter().map(String::as_str).collect();
        flags.extend(["--clock-shift", "259200"]);
        Peer::start(folder.path(), name, &["up"], &flags)
    };
    let two = later("two", &addresses.1);
    let (status, said) = read(&two, &own_page);
    assert!(status == 502 && said.contains("must be published again"), "{status} {said}");
    let _one = later("one", &addresses.0);
    shows(&two, &own_page, "content");
}

#[test]
fn keys_travel_as_files_and_nobody_loses_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::up(folder.path(), "two");
    let name = text(&one.json(&["key", "gen", "site", "--json"]), "name");
    let path = |file: &str| folder.path().join(file).to_str().expect("a path").to_owned();
    for (format, file) in [("libp2p", path("site.key")), ("pem", path("site.pem"))] {
        let export = ["key", "export", "site", "--format", format, "-o", &file, "--dir", &path("one")];
        one.say(&export);
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(refused(&one, &export, 1).contains("making"), "never over another file");
        two.say(&["key", "import", format, &file, "--dir", &path("two")]);
    }
    let listed = two.say(&["key", "list", "--json"]);
    let mine: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let same: Vec<String> = mine.iter().filter(|key| key["name"] == name.as_str()).map(|key| text(key, "key")).collect();
    assert_eq!(same, ["libp2p", "pem"]);
    two.say(&["key", "rename", "libp2p", "site"]);
    assert!(refused(&two, &["key", "rename", "pem", "site"], 2).contains("there is a key \"site\" already"));
    assert!(refused(&two, &["key", "gen", "site"], 2).contains("already"));
    assert!(refused(&two, &["key", "rm", "self"], 2).contains("identity"));
    std::fs::write(path("junk"), "junk").expect("written");
    assert!(refused(&two, &["key", "import", "junk", &path("junk"), "--dir", &path("two")], 1).contains("no private key"));
    assert!(refused(&two, &["key", "export", "self", "--dir", &path("two")], 1).contains("cannot be exported"));
    assert!(refused(&two, &["key", "export", "site", "--dir", &path("nowhere")], 1).contains("no data directory"));
}

/// A DNS server that answers every question for TXT with what `zone` has.
fn dns(zone: &'static [(&'static str, &'static str)]) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let (mut labels, mut at) = (Vec::new(), 12);
            while at < length && question[at] != 0 {
                let label = &question[at + 1..at + 1 + usize::from(question[at])];
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += 1 + label.len();
            }
            let text = zone.iter().find(|(name, _)| *name == labels.join(".")).map(|(_, text)| *text);
            let mut answer = question[..at + 5].to_vec();
            answer[2..12].copy_from_slice(&[0x81, if text.is_some() { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(text.is_some()), 0, 0, 0, 0]);
            if let Some(text) = text {
                answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, text.len() as u8 + 1, text.len() as u8]);
                answer.extend(text.as_bytes());
            }
            socket.send_to(&answer, from).ok();
        }
    });
    address
}

#[test]
fn domain_names_lead_to_content_by_table_and_by_dns() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = dns(&[
        ("_dnslink.www.example.org", "dnslink=/ipns/site.example.org"),
        ("_dnslink.circle.example.org", "dnslink=/ipns/round.example.org"),
        ("_dnslink.round.example.org", "dnslink=/ipns/circle.example.org"),
    ]);
    std::fs::create_dir(folder.path().join("one")).expect("made");
    // The root of a folder with one file, which the test adds below: the same bytes have the same CID.
    let root = {
        let before = tempfile::tempdir().expect("a folder");
        let peer = Peer::up(before.path(), "before");
        add_copies(&peer, before.path(), "page", "by name", "1")
    };
    let toml = format!("[names]\ndns = [\"{server}\"]\n[names.dnslink]\n\"site.example.org\" = \"/ipfs/{root}\"\n");
    std::fs::write(folder.path().join("one/pinfold.toml"), toml).expect("written");
    let one = Peer::up(folder.path(), "one");
    assert_eq!(add_copies(&one, folder.path(), "page", "by name", "1"), root);
    for name in ["site.example.org", "www.example.org"] {
        assert_eq!(read(&one, &format!("/ipns/{name}/page")), (200, "by name".to_owned()), "{name}");
    }
    let resolved = one.json(&["name", "resolve", "www.example.org", "--json"]);
    let from: Vec<String> = resolved["steps"].as_array().expect("steps").iter().map(|step| text(step, "from")).collect();
    assert_eq!((text(&resolved, "path"), from), (format!("/ipfs/{root}"), vec!["dns".to_owned(), "table".to_owned()]));
    assert_eq!(one.say(&["name", "resolve", "www.example.org", "--recursive=false"]).trim(), "/ipns/site.example.org");
    let said = refused(&one, &["name", "resolve", "circle.example.org"], 2);
    assert!(said.contains("circle.example.org -> round.example.org -> circle.example.org"), "{said}");
    let said = refused(&one, &["name", "resolve", "nothing.example.org"], 2);
    assert!(said.contains("TXT record _dnslink.nothing.example.org"), "{said}");
    // A name of a key that leads to a domain name.
    one.say(&["name", "publish", "/ipns/www.example.org"]);
    let own = text(&one.json(&["key", "list", "--json"]), "name");
    assert_eq!(read(&one, &format!("/ipns/{own}/page")).1, "by name");
}

#[test]
fn what_a_peer_published_goes_along_when_it_leaves() {
    let folder = tempfile::tempdir().expect("a folder");
    // Alone it publishes, and comes back alone.
    let two = Peer::up(folder.path(), "two");
    two.say(&["key", "gen", "site"]);
    let name = text(&two.json(&["name", "publish", "bafkqaaa", "--key", "site", "--json"]), "name");
    assert_eq!(two.terminate(), Some(0));
    let mut two = Peer::up(folder.path(), "two");
    assert_eq!(two.say(&["name", "resolve", &name]).trim(), "/ipfs/bafkqaaa");
    let file = folder.path().join("file");
    std::fs::write(&file, "a lone peer takes pins after a restart").expect("written");
    two.say(&["add", file.to_str().expect("a path"), "--copies", "1", "--wait", "1"]);
    two.say(&["leave", "--force"]);
    assert_eq!(two.ended(SOON), Some(0));
    // In the next cluster everybody answers for it.
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    assert_eq!(text(&two.json(&["name", "ls", "--json"]), "key"), "site");
    until("the other peer answers for the name", SOON, || {
        let output = one.run(&["name", "resolve", &name]);
        (String::from_utf8_lossy(&output.stdout).trim() == "/ipfs/bafkqaaa").then_some(())
    });
}
