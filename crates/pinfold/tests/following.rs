//! A peer in follower mode: it does what others wish, and says at once that nothing can be written through it.

mod common;

use common::{Peer, holders, meet, until};
use std::time::Duration;

fn following(folder: &std::path::Path, name: &str) {
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("pinfold.toml"), "follower = true\n").expect("written");
}

#[test]
fn a_follower_holds_what_others_pin_and_refuses_to_write() {
    let folder = tempfile::tempdir().expect("a folder");
    following(folder.path(), "two");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    let [one, two] = &peers;
    let file = folder.path().join("file");
    std::fs::write(&file, common::noise(100_000, 1)).expect("written");
    let path = file.to_str().expect("a path");
    let root = one.json(&["add", path, "--copies", "2", "--wait", "2", "--json"])["cid"].as_str().expect("a root").to_owned();
    until("both hold it", Duration::from_secs(60), || (holders(two, &root) == ["one", "two"]).then_some(()));

    std::fs::write(&file, common::noise(100_000, 2)).expect("written");
    let export = folder.path().join("pins");
    let export = export.to_str().expect("a path");
    // A line of the other's pinset, as a new pin.
    let other = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let text = one.say(&["state", "export"]).replace(&root, other);
    assert!(text.contains(other), "{text}");
    std::fs::write(export, text).expect("written");
    for arguments in [&["add", path][..], &["pin", "add", other], &["pin", "rm", &root], &["state", "import", export]] {
        let output = two.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("follower mode") && said.contains("follower = false"), "{arguments:?}: {said}");
    }
    assert_eq!(one.say(&["pin", "ls"]).lines().count(), two.say(&["pin", "ls"]).lines().count());
    assert!(!two.say(&["pin", "ls"]).contains(other) && holders(two, &root) == ["one", "two"]);
    // What it may do: follow an unpin of the other.
    one.say(&["pin", "rm", &root]);
    until("the unpin arrives", Duration::from_secs(60), || (!two.say(&["pin", "ls"]).contains(&root)).then_some(()));
}
