//! A Kubo repository becomes a Pinfold peer's content: the same blocks, pins, names and keys; its own files stay as they were.

mod common;

use common::{Peer, files, http, noise, pinfold, until};
use dag::car::{CarItem, CarReader};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const IPNS: &str = include_str!("../../wire/tests/vectors/ipns.json");

/// Blocks as Kubo lays them out: two letters before the last one name the folder.
fn put(repo: &Path, cid: &types::Cid, data: &[u8]) -> PathBuf {
    let file = wire::flatfs::file_of_block(cid);
    let letters = file.trim_end_matches(".data");
    let folder = repo.join("blocks").join(&letters[letters.len() - 3..letters.len() - 1]);
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join(&file), data).expect("written");
    folder.join(file)
}

/// A repository with a folder in it, made by another peer: the root, and its blocks' files.
fn repository(folder: &Path, repo: &Path) -> (String, Vec<PathBuf>) {
    std::fs::create_dir_all(repo.join("blocks")).expect("made");
    std::fs::create_dir_all(repo.join("keystore")).expect("made");
    let spec = json!({"type": "mount", "mounts": [
        {"mountpoint": "/blocks", "path": "blocks", "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "type": "flatfs"},
        {"mountpoint": "/", "path": "datastore", "type": "levelds"},
    ]});
    std::fs::write(repo.join("datastore_spec"), spec.to_string()).expect("written");
    std::fs::write(repo.join("blocks/SHARDING"), "/repo/flatfs/shard/v1/next-to-last/2\n").expect("written");
    std::fs::write(repo.join("blocks/_README"), "not a block").expect("written");
    std::fs::write(repo.join("version"), "18\n").expect("written");
    std::fs::write(repo.join("repo.lock"), "").expect("written");
    let config = json!({
        "Identity": { "PrivKey": "CAESQK5fVsperi2ug8jCvsXj3u+efMctQhFTRmjBLl9dL02MKlmqQAFwSK7keZo8wKeIaTmGWKGa+z8IFjLs+kbnFxY=" },
        "Addresses": { "Swarm": ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/webrtc-direct"], "Gateway": [] },
        "Datastore": { "StorageMax": "10GB" },
    });
    std::fs::write(repo.join("config"), config.to_string()).expect("written");
    let vectors: Value = serde_json::from_str(IPNS).expect("JSON");
    let key = hex::decode(vectors[0]["private_key"].as_str().expect("a key")).expect("digits");
    std::fs::write(repo.join("keystore").join(wire::ipns::key_file("site")), key).expect("written");

    let source = folder.join("content");
    std::fs::create_dir_all(source.join("below")).expect("made");
    std::fs::write(source.join("below/large"), noise(900_000, 1)).expect("written");
    std::fs::write(source.join("readme"), "read me").expect("written");
    let maker = Peer::up(folder, "maker");
    let root =
        maker.json(&["add", source.to_str().expect("a path"), "--copies", "1", "--json"])["cid"].as_str().expect("a root").to_owned();
    let (status, car) = http(maker.gateway(), "GET", &format!("/ipfs/{root}?format=car"), &[], b"");
    assert_eq!(status, 200);
    let (mut reader, mut files) = (CarReader::new(), Vec::new());
    reader.push(&car);
    while let Some(item) = reader.next_item().expect("a CAR") {
        if let CarItem::Block(block) = item {
            files.push(put(repo, &block.cid, &block.data));
        }
    }
    assert!(files.len() > 5);
    (root, files)
}

fn migrate(repo: &Path, to: &Path, more: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = pinfold();
    command.arg("migrate-kubo").arg(repo).arg("--dir").arg(to).arg("--json").args(more);
    // No program of Kubo's, whatever this machine has.
    let Output { status, stdout, stderr } = command.env("PATH", "/nonexistent").output().expect("it starts");
    let said = serde_json::from_slice(&stdout).unwrap_or_default();
    (status.code(), said, String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn blocks_pins_and_keys_come_over_and_the_repository_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, to) = (folder.path().join("kubo"), folder.path().join("one"));
    let (root, blocks) = repository(folder.path(), &repo);
    let stray = dag::Block::new(dag::codec::RAW, dag::HashFn::SHA2_256, "damaged".into()).expect("a block");
    put(&repo, &stray.cid, b"other bytes");
    let pins = folder.path().join("pins.txt");
    std::fs::write(&pins, format!("{root} recursive the holiday\n")).expect("written");
    let before = files(&repo);

    let (code, said, errors) = migrate(&repo, &to, &[]);
    assert!(code == Some(1) && errors.contains("--pins") && said.is_null(), "nobody reads the pins: {errors}");
    let with_pins = ["--pins", pins.to_str().expect("a path")];
    // A block is lost at first: what is there comes over, and the pin is named.
    let hidden = folder.path().join("hidden");
    std::fs::rename(&blocks[3], &hidden).expect("moved");
    let (code, said, errors) = migrate(&repo, &to, &with_pins);
    assert!(code == Some(1) && errors.contains("1 pins are not complete"), "{errors}");
    assert_eq!((said["blocks"]["copied"].as_u64(), said["blocks"]["bad"].as_u64()), (Some(blocks.len() as u64 - 1), Some(1)), "{said}");
    assert_eq!(said["incomplete"][0]["cid"], root.as_str());
    std::fs::rename(&hidden, &blocks[3]).expect("moved back");
    // Again: only what is missing is read.
    let (code, said, errors) = migrate(&repo, &to, &with_pins);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!((said["blocks"]["copied"].as_u64(), said["blocks"]["here_already"].as_u64()), (Some(1), Some(blocks.len() as u64 - 1)));
    assert_eq!((said["pins"].as_u64(), &said["keys"]), (Some(1), &json!(["site", "kubo-self"])));
    assert!(said["notes"].to_string().contains("StorageMax") && said["notes"].to_string().contains("WebRTC"), "{said}");
    assert!(files(&repo) == before, "the repository is as it was");

    let peer = Peer::up(folder.path(), "one");
    until("the pin is held", Duration::from_secs(30), || (common::holders(&peer, &root) == ["one"]).then_some(()));
    let pin = peer.json(&["pin", "ls", "--json"]);
    assert_eq!((pin["cid"].as_str(), pin["name"].as_str()), (Some(root.as_str()), Some("the holiday")));
    let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}/below/large"), &[], b"");
    assert!(status == 200 && body == noise(900_000, 1));
    let keys = peer.say(&["key", "list", "--json"]);
    assert!(keys.contains("k51qzi5uqu5dh8l6sz5pr1l9kn7ud9wj2g2rum86w1gdc72vmpgtiuuzg13jme") && keys.contains("kubo-self"), "{keys}");
    let (code, _, errors) = migrate(&repo, &to, &with_pins);
    assert!(code == Some(1) && errors.contains("stop the peer first"), "not into a running peer: {errors}");
    // The cluster's own: unpinned, it goes.
    peer.say(&["pin", "rm", &root]);
    until("the content goes with its pin", Duration::from_secs(60), || {
        let (status, _) = http(peer.gateway(), "GET", &format!("/ipfs/{root}/below/large"), &[("Cache-Control", "only-if-cached")], b"");
        (status == 412).then_some(())
    });
}

#[test]
fn a_repository_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, to) = (folder.path().join("kubo"), folder.path().join("one"));
    repository(folder.path(), &repo);
    let lock = std::fs::File::options().write(true).open(repo.join("repo.lock")).expect("a lock");
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("locked");
    let (code, _, errors) = migrate(&repo, &to, &["--no-pins"]);
    assert!(code == Some(1) && errors.contains("in use by a running Kubo"), "{errors}");
    drop(lock);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::fs::write(repo.join("api"), format!("/ip4/127.0.0.1/tcp/{port}\n")).expect("written");
    let (code, _, errors) = migrate(&repo, &to, &["--no-pins"]);
    assert!(code == Some(1) && errors.contains("in use by a running Kubo"), "{errors}");
    assert!(!to.exists(), "nothing was made");
    // A daemon that was killed leaves the file behind.
    drop(listener);
    let (code, _, errors) = migrate(&repo, &to, &["--no-pins"]);
    assert_eq!(code, Some(0), "{errors}");
    std::fs::write(repo.join("datastore_spec"), "{\"type\":\"badgerds\",\"path\":\"badgerds\"}").expect("written");
    let (code, _, errors) = migrate(&repo, &to, &["--no-pins"]);
    assert!(code == Some(1) && errors.contains("not in flatfs"), "{errors}");
}

#[test]
fn a_repository_joins_a_cluster_and_gets_its_second_copies() {
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, to) = (folder.path().join("kubo"), folder.path().join("two"));
    let (root, _) = repository(folder.path(), &repo);
    let pins = folder.path().join("pins.txt");
    std::fs::write(&pins, format!("{root} recursive site\n")).expect("written");
    let (code, _, errors) = migrate(&repo, &to, &["--pins", pins.to_str().expect("a path"), "--copies", "2"]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, errors) = migrate(&repo, &to, &["--no-pins", "--cluster-name", "another"]);
    assert!(code == Some(1) && errors.contains("belongs to the cluster \"pinfold\""), "{errors}");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    until("both hold it", Duration::from_secs(120), || (common::holders(&two, &root) == ["one", "two"]).then_some(()));
    let (status, body) = http(one.gateway(), "GET", &format!("/ipfs/{root}/readme"), &[], b"");
    assert_eq!((status, body), (200, b"read me".to_vec()));
}
