//! Files that cannot be added, or change while they are: refused by name, nothing is pinned, what was there stays.

mod common;

use common::{Peer, noise, pinfold, until};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn pins(peer: &Peer) -> usize {
    peer.say(&["pin", "ls", "--json"]).lines().count()
}

/// A folder with two good files, and its peer with one pin.
fn start(folder: &Path) -> (Peer, PathBuf) {
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).expect("made");
    std::fs::write(tree.join("a"), "first").expect("written");
    std::fs::write(tree.join("z"), "last").expect("written");
    let peer = Peer::up(folder, "one");
    peer.say(&["add", text(&tree.join("a"))]);
    (peer, tree)
}

#[test]
fn sockets_pipes_and_devices_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (peer, tree) = start(folder.path());
    let (socket, pipe) = (tree.join("socket"), tree.join("pipe"));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let refused = peer.run(&["add", text(&tree)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("tree/pipe is a named pipe") && said(&refused).contains("--skip-errors"), "{}", said(&refused));
    for (path, what) in [(&socket, "a socket"), (&pipe, "a named pipe"), (&PathBuf::from("/dev/zero"), "a device")] {
        let refused = peer.run(&["add", text(path)]);
        assert!(refused.status.code() == Some(1) && said(&refused).contains(what), "{}", said(&refused));
    }
    assert_eq!(pins(&peer), 1, "nothing was pinned");
    let partly = peer.run(&["add", text(&tree), "--skip-errors"]);
    assert_eq!(partly.status.code(), Some(1), "not everything was kept");
    let words = said(&partly);
    assert!(words.contains("tree/pipe") && words.contains("tree/socket") && words.contains("2 things were left out"), "{words}");
    let root =
        String::from_utf8_lossy(&partly.stdout).lines().last().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).expect("a root");
    assert_eq!((peer.say(&["cat", &format!("{root}/a")]), peer.say(&["cat", &format!("{root}/z")])), ("first".into(), "last".into()));
    let as_json = peer.run(&["add", text(&tree), "--skip-errors", "--json"]);
    let last: serde_json::Value =
        serde_json::from_str(String::from_utf8_lossy(&as_json.stdout).lines().last().expect("a line")).expect("JSON");
    assert_eq!((last["skipped"].as_u64(), last["reasons"].as_array().map(Vec::len)), (Some(2), Some(2)));
    // What a shell makes of <(command) is a pipe too, and is taken.
    let shell = Command::new("bash")
        .args(["-c", &format!("'{}' add <(echo piped) --quiet", env!("CARGO_BIN_EXE_pinfold"))])
        .env("PINFOLD_API", peer.api())
        .output()
        .expect("bash");
    assert!(shell.status.success(), "{}", said(&shell));
    assert_eq!(peer.say(&["cat", String::from_utf8_lossy(&shell.stdout).trim()]), "piped\n");
}

/// The command as somebody whom permissions stop (root reads everything).
fn as_nobody(folder: &Path, peer: &Peer, arguments: &[&str]) -> Output {
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("changed");
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.args(arguments).env("PINFOLD_API", peer.api()).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.output()
    };
    run(Path::new(env!("CARGO_BIN_EXE_pinfold"))).unwrap_or_else(|_| {
        // The build may lie where only its owner may look.
        let copy = folder.join("pinfold-copy");
        std::fs::copy(env!("CARGO_BIN_EXE_pinfold"), &copy).expect("copied");
        run(&copy).expect("it starts")
    })
}

#[test]
fn what_cannot_be_read_is_named_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let (peer, tree) = start(folder.path());
    std::fs::write(tree.join("locked"), "secret").expect("written");
    std::fs::create_dir(tree.join("shut")).expect("made");
    std::fs::set_permissions(tree.join("locked"), PermissionsExt::from_mode(0o0)).expect("changed");
    let refused = as_nobody(folder.path(), &peer, &["add", text(&tree)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("tree/locked") && said(&refused).contains("ermission denied"), "{}", said(&refused));
    assert_eq!(pins(&peer), 1, "nothing was pinned");
    std::fs::set_permissions(tree.join("shut"), PermissionsExt::from_mode(0o0)).expect("changed");
    let partly = as_nobody(folder.path(), &peer, &["add", text(&tree), "--skip-errors", "--quiet"]);
    let words = said(&partly);
    assert!(partly.status.code() == Some(1) && words.contains("tree/locked") && words.contains("tree/shut"), "{words}");
    assert!(words.contains("2 things were left out"), "{words}");
    assert_eq!(pins(&peer), 2);
    std::fs::set_permissions(tree.join("shut"), PermissionsExt::from_mode(0o700)).expect("changed");
    let missing = peer.run(&["add", text(&tree.join("nothing-here"))]);
    assert!(missing.status.code() == Some(1) && said(&missing).contains("nothing-here"), "{}", said(&missing));
}

/// How far the command has read the file: the largest position among its descriptors for it.
fn position(command: &Child, file: &Path) -> u64 {
    let fds = format!("/proc/{}/fd", command.id());
    let open = std::fs::read_dir(fds).into_iter().flatten().flatten().filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == file));
    let position = |fd: std::fs::DirEntry| {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{}", command.id(), fd.file_name().to_string_lossy())).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse::<u64>().ok()
    };
    open.filter_map(position).max().unwrap_or(0)
}

/// How a file changes, with which flags it is added, and the change itself.
type Change = (&'static str, &'static [&'static str], fn(&Path));

#[test]
fn a_file_that_changes_while_it_is_read_is_not_added() {
    let folder = tempfile::tempdir().expect("a folder");
    let (peer, tree) = start(folder.path());
    let big = tree.join("big");
    const SIZE: u64 = 96 << 20;
    let changes: [Change; 4] = [
        ("grew", &[], |path| {
            let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("opened");
            std::io::Write::write_all(&mut file, b"more").expect("written");
        }),
        ("shrank", &[], |path| std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(50 << 20)).expect("cut")),
        ("was written over", &[], |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
            std::os::unix::fs::FileExt::write_all_at(&file, b"other", 90 << 20).expect("written");
        }),
        ("shrank, and the rest was wanted", &["--skip-errors"], |path| {
            std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(50 << 20)).expect("cut");
        }),
    ];
    for (how, flags, change) in changes {
        std::fs::File::create(&big).and_then(|file| file.set_len(SIZE)).expect("made");
        // While the peer stands still the command reads as far as the buffers between them go, and waits.
        peer.signal("-STOP");
        let mut command = pinfold();
        command.args(["add", text(&tree)]).args(flags).env("PINFOLD_API", peer.api());
        let adding = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        until("the command is in the middle of the file", SOON, || {
            let first = position(&adding, &big);
            std::thread::sleep(Duration::from_millis(200));
            (first > 0 && first == position(&adding, &big)).then_some(())
        });
        assert!(position(&adding, &big) < 50 << 20, "the buffers hold less than the file");
        change(&big);
        peer.signal("-CONT");
        let output = adding.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{how}: {}", said(&output));
        assert!(said(&output).contains("tree/big changed while it was read"), "{how}: {}", said(&output));
    }
    assert_eq!(pins(&peer), 1, "nothing was pinned");
    std::fs::write(&big, noise(100_000, 1)).expect("written");
    peer.say(&["add", text(&tree)]);
    assert_eq!(pins(&peer), 2, "at rest it is added");
}
