//! Names and shapes of any kind go in and come out as they were: bytes that are no text, the longest names, deep trees, empty things.

mod common;

use common::{Peer, http};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A name and what it is.
type Listed = (Vec<u8>, Vec<u8>);

/// Every path below a folder with its kind and content, in order; iterative, since trees are deep here.
fn whole(folder: &Path) -> Vec<Listed> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(folder).expect("below it").as_os_str().as_bytes().to_vec();
            let kind = entry.file_type().expect("a kind");
            let content = if kind.is_dir() {
                open.push(path);
                b"folder".to_vec()
            } else if kind.is_symlink() {
                [b"link to ", std::fs::read_link(&path).expect("a link").as_os_str().as_bytes()].concat()
            } else {
                [b"file ", std::fs::read(&path).expect("a file").as_slice()].concat()
            };
            found.push((name, content));
        }
    }
    found.sort();
    found
}

fn round_trip(peer: &Peer, folder: &Path, back: &Path) -> String {
    let added = peer.json(&["add", folder.to_str().expect("a path"), "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    peer.say(&["get", &root, "-o", back.to_str().expect("a path")]);
    assert!(whole(folder) == whole(back), "what came back differs");
    root
}

#[test]
fn names_of_any_bytes_come_back_through_every_door() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).expect("made");
    let names: [&[u8]; 9] = [
        b"\xff\xfe",
        b"\xff\xff",
        b"caf\xe9",
        b"caf\xc3\xa9",
        b" + & = % %41 \"quoted\" ",
        b"back\\slash",
        b"new\nline",
        b"\x01\x7f",
        b"-rf",
    ];
    for (number, name) in names.iter().enumerate() {
        std::fs::write(tree.join(OsStr::from_bytes(name)), format!("content {number}")).expect("written");
    }
    let below = tree.join(OsStr::from_bytes(b"dir\xf0\x28"));
    std::fs::create_dir(&below).expect("made");
    std::fs::write(below.join(OsStr::from_bytes(b"\x80")), "below").expect("written");
    std::os::unix::fs::symlink(OsStr::from_bytes(b"to \xff"), tree.join("link")).expect("linked");
    std::fs::write(tree.join(OsStr::from_bytes(&[b'n'; 255])), "the longest name").expect("written");

    let peer = Peer::up(folder.path(), "one");
    let root = round_trip(&peer, &tree, &folder.path().join("back"));
    // One file by its path: the command line takes the bytes, the gateway and the REST door take them escaped.
    let typed = OsString::from_vec([root.as_bytes(), b"/dir\xf0\x28/\x80"].concat());
    let output = common::pinfold().arg("cat").arg(&typed).env("PINFOLD_API", peer.api()).output().expect("runs");
    assert_eq!(output.stdout, b"below", "{}", String::from_utf8_lossy(&output.stderr));
    let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}/caf%E9"), &[], b"");
    assert_eq!((status, body), (200, b"content 2".to_vec()));
    let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}/caf%C3%A9"), &[], b"");
    assert_eq!((status, body), (200, b"content 3".to_vec()));
    // A listing links to them by their bytes, and shows a terminal nothing that would steer it.
    let (status, page) = http(peer.gateway(), "GET", &format!("/ipfs/{root}/"), &[], b"");
    assert!(status == 200 && String::from_utf8_lossy(&page).contains("%FF%FE"));
    let listed = peer.say(&["ls", &root]);
    assert!(listed.contains("\\xff\\xfe") && listed.contains("new\\x0aline") && listed.contains("café"), "{listed}");
}

#[test]
fn deep_trees_and_empty_things_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    let mut deep = tree.clone();
    for _ in 0..500 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).expect("made");
    std::fs::write(deep.join("bottom"), "found").expect("written");
    std::fs::create_dir_all(tree.join("empty/inner")).expect("made");
    std::fs::write(tree.join("nothing"), "").expect("written");
    let peer = Peer::up(folder.path(), "one");
    let root = round_trip(&peer, &tree, &folder.path().join("back"));
    let path = format!("{root}/{}/bottom", ["d"; 500].join("/"));
    assert_eq!(peer.say(&["cat", &path]), "found");
    // An empty folder and an empty file alone.
    let (empty, nothing) = (folder.path().join("empty"), folder.path().join("nothing"));
    std::fs::create_dir(&empty).expect("made");
    std::fs::write(&nothing, "").expect("written");
    round_trip(&peer, &empty, &folder.path().join("empty-back"));
    let root = peer.json(&["add", nothing.to_str().expect("a path"), "--json"])["cid"].as_str().expect("a root").to_owned();
    assert_eq!(peer.say(&["cat", &root]), "");
}

#[test]
fn links_are_kept_as_links_or_followed_without_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("in")).expect("made");
    std::fs::write(tree.join("file"), "content").expect("written");
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, tree.join(name)).expect("linked");
    link("file", "good");
    let peer = Peer::up(folder.path(), "one");
    let add = |flags: &[&str]| {
        let mut command = vec!["add", tree.to_str().expect("a path"), "--quiet"];
        command.extend(flags);
        let output = peer.run(&command);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let back = |root: &str, name: &str| -> PathBuf {
        let to = folder.path().join(name);
        peer.say(&["get", root, "-o", to.to_str().expect("a path")]);
        to
    };
    let (code, root, _) = add(&["--dereference"]);
    assert_eq!(code, Some(0));
    let followed = back(&root, "followed");
    assert!(!followed.join("good").is_symlink() && std::fs::read(followed.join("good")).is_ok_and(|content| content == b"content"));

    // A link to itself, a pair that lead to each other, one to the folder around it, one to nothing.
    link("self", "self");
    link("b", "a");
    link("a", "b");
    link("..", "in/up");
    link("nowhere", "dangling");
    let kept = round_trip(&peer, &tree, &folder.path().join("kept"));
    assert!(!kept.is_empty());
    let (code, _, said) = add(&["--dereference"]);
    assert!(code == Some(1) && said.contains("tree/"), "{said}");
    let (code, root, said) = add(&["--dereference", "--skip-errors"]);
    assert_eq!(code, Some(1), "{said}");
    for name in ["tree/self", "tree/a", "tree/b", "tree/dangling"] {
        assert!(said.contains(name), "{name} is listed: {said}");
    }
    assert!(said.contains("in/up leads back to a folder around it") && said.contains("5 things were left out"), "{said}");
    let rest = back(&root, "rest");
    assert_eq!(whole(&rest).len(), 3, "file, good, in");
    // The loop named itself, at the top.
    let output = peer.run(&["add", tree.join("self").to_str().expect("a path")]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("tree/self"));
}
