//! Real peers for tests: processes of the built binary on loopback, each in its own folder, ended with the test.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub fn pinfold() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pinfold"))
}

/// One running peer.
pub struct Peer {
    pub name: String,
    pub dir: PathBuf,
    pub ready: Value,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Peer {
    /// `pinfold up` in `folder/name`.
    pub fn up(folder: &Path, name: &str) -> Peer {
        Peer::start(folder, name, &["up"], &[])
    }

    /// `pinfold join`.
    pub fn join(folder: &Path, name: &str, invite: &str) -> Peer {
        Peer::start(folder, name, &["join", invite], &[])
    }

    /// With further flags.
    pub fn start(folder: &Path, name: &str, command: &[&str], flags: &[&str]) -> Peer {
        Peer::try_start(folder, name, command, flags).unwrap_or_else(|said| panic!("peer {name} did not start: {said}"))
    }

    /// Gives what it said on standard error if it does not become ready.
    pub fn try_start(folder: &Path, name: &str, command: &[&str], flags: &[&str]) -> Result<Peer, String> {
        Peer::try_start_by(pinfold(), folder, name, command, flags)
    }

    /// With so few file descriptors.
    pub fn with_few_descriptors(folder: &Path, name: &str, descriptors: u32, command: &[&str]) -> Peer {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_pinfold")]);
        Peer::try_start_by(shell, folder, name, command, &[]).unwrap_or_else(|said| panic!("peer {name} did not start: {said}"))
    }

    fn try_start_by(mut started: Command, folder: &Path, name: &str, command: &[&str], flags: &[&str]) -> Result<Peer, String> {
        let dir = folder.join(name);
        let log = folder.join(format!("{name}.log"));
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let already = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        started.args(command).arg("--dir").arg(&dir).args(["--name", name, "--json", "--until-stdin-closes"]);
        for (flag, default) in [
            ("--api", "127.0.0.1:0"),
            ("--gateway", "127.0.0.1:0"),
            ("--proxy", "127.0.0.1:0"),
            ("--cluster", "/ip4/127.0.0.1/tcp/0"),
            ("--swarm", "/ip4/127.0.0.1/tcp/0"),
            ("--grace", "2s"),
        ] {
            if !flags.contains(&flag) {
                started.args([flag, default]);
            }
        }
        started.args(flags);
        let mut child = started.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn().expect("the binary starts");
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        match serde_json::from_str::<Value>(&line) {
            Ok(ready) if ready["ready"] == true => Ok(Peer { name: name.to_owned(), dir, ready, child, stdin }),
            _ => {
                child.kill().ok();
                child.wait().ok();
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                Err(format!("{line}{}", &text[already as usize..]))
            }
        }
    }

    /// Where it listened, so that it can be started there again: flags for `start`.
    pub fn same_addresses(&self) -> Vec<String> {
        let bare = |key: &str| {
            let list = self.ready[key].as_array().cloned().unwrap_or_default();
            let first = list.first().and_then(Value::as_str).unwrap_or_default().to_owned();
            first.split("/p2p/").next().unwrap_or_default().to_owned()
        };
        vec!["--cluster".to_owned(), bare("cluster"), "--swarm".to_owned(), bare("swarm")]
    }

    /// `pinfold up` where it listened before.
    pub fn again(folder: &Path, name: &str, addresses: &[String]) -> Peer {
        let flags: Vec<&str> = addresses.iter().map(String::as_str).collect();
        Peer::start(folder, name, &["up"], &flags)
    }

    pub fn api(&self) -> &str {
        self.ready["api"].as_str().expect("an api")
    }

    pub fn gateway(&self) -> &str {
        self.ready["gateway"].as_str().expect("a gateway")
    }

    pub fn id(&self) -> &str {
        self.ready["peer"].as_str().expect("an id")
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// A command against this peer.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = pinfold().args(arguments).env("PINFOLD_API", self.api()).stdin(Stdio::null()).output();
        output.expect("the binary starts")
    }

    /// The same; its standard output, which must come with exit code 0.
    pub fn say(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "pinfold {arguments:?} failed: {out}{err}");
        out.into_owned()
    }

    /// The last line of its standard output as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.say(arguments);
        serde_json::from_str(said.trim().lines().last().unwrap_or("null")).expect("JSON")
    }

    pub fn invite(&self) -> String {
        self.say(&["invite"]).trim().lines().last().expect("an invite").to_owned()
    }

    /// SIGTERM, as a service manager stops it: exit code.
    pub fn terminate(mut self) -> Option<i32> {
        Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        self.child.wait().expect("it ends").code()
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(done.success());
    }

    /// Memory of its own that the process has in use, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") << 10
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ends");
    }

    /// Waits for it to end by itself.
    pub fn ended(&mut self, limit: Duration) -> Option<i32> {
        until("the peer ends by itself", limit, || self.child.try_wait().expect("a child")).code()
    }

    /// `GET path` of the REST door: status and body.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        http(self.api(), "GET", path, &[], b"")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // One that a test has stopped could not end.
        Command::new("kill").arg("-CONT").arg(self.child.id().to_string()).stderr(Stdio::null()).status().ok();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Three peers that see each other.
pub fn three(folder: &Path) -> Vec<Peer> {
    let mut peers = vec![Peer::up(folder, "one")];
    for name in ["two", "three"] {
        let invite = peers[0].invite();
        peers.push(Peer::join(folder, name, &invite));
    }
    meet(&peers);
    peers
}

/// Waits until every peer sees all of them up.
pub fn meet(peers: &[Peer]) {
    for peer in peers {
        until("all peers see each other", Duration::from_secs(60), || (up_count(peer) == peers.len()).then_some(()));
    }
    std::thread::sleep(HELLO);
}

/// A peer that is seen up may not have heard the other's hello yet, which names the node that lanes come from; no door shows that.
const HELLO: Duration = Duration::from_secs(2);

/// How many members a peer sees up, itself included.
pub fn up_count(peer: &Peer) -> usize {
    peer.say(&["peers", "--json"]).lines().filter(|line| line.contains("\"health\":\"up\"")).count()
}

/// Names of the peers that hold a CID now, as `peer` sees it; sorted.
pub fn holders(peer: &Peer, cid: &str) -> Vec<String> {
    let status = peer.json(&["status", cid, "--json"]);
    let copies = status["peer_map"].as_object().cloned().unwrap_or_default();
    let held = copies.values().filter(|copy| copy["status"] == "pinned");
    let mut names: Vec<String> = held.map(|copy| copy["peername"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

/// Waits for a condition, not for time.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(begun.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A plain HTTP/1.1 request on its own connection: status and whole body (chunked coding undone).
pub fn http(base: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Vec<u8>) {
    let host = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("the door is open");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer[split + 4..].to_vec();
    (status, if head.contains("transfer-encoding: chunked") { unchunk(&body) } else { body })
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(String::from_utf8_lossy(&body[..end]).trim(), 16).unwrap_or(0);
        if length == 0 || body.len() < end + 2 + length {
            break;
        }
        out.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[(end + 4 + length).min(body.len())..];
    }
    out
}

/// Every file below a folder with its content.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), std::fs::read(entry.path()).expect("read"));
        }
    }
    found
}

/// Bytes that do not repeat (xorshift64*).
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A folder with several shapes: nested folders, empty file, empty folder, hidden file, link, a file of many blocks.
pub fn sample(folder: &Path) -> PathBuf {
    let root = folder.join("sample folder");
    std::fs::create_dir_all(root.join("deep/er")).expect("made");
    std::fs::create_dir_all(root.join("empty")).expect("made");
    std::fs::write(root.join("readme.txt"), b"hello\n").expect("written");
    std::fs::write(root.join("nothing"), b"").expect("written");
    std::fs::write(root.join(".hidden"), b"hidden").expect("written");
    std::fs::write(root.join("deep/er/ü & % #.bin"), noise(300_000, 1)).expect("written");
    std::fs::write(root.join("large.bin"), noise(3_000_000, 2)).expect("written");
    std::os::unix::fs::symlink("readme.txt", root.join("link")).expect("linked");
    root
}
