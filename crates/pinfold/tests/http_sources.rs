//! Peers that ask servers over HTTP which their user named: gateways for blocks, routers for who has them.

mod common;

use common::{Peer, files, http, sample, until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of its own, with its own `[routing]`.
fn cluster(folder: &Path, name: &str, routing: &str, flags: &[&str]) -> Peer {
    configure(folder, name, routing);
    Peer::start(folder, name, &["up"], flags)
}

fn configure(folder: &Path, name: &str, routing: &str) {
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir).expect("made");
    std::fs::write(dir.join("pinfold.toml"), format!("[routing]\n{routing}\n")).expect("written");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn add(peer: &Peer, path: &Path) -> String {
    text(&peer.json(&["add", path.to_str().expect("a path"), "--json"])["cid"])
}

fn server(peer: &Peer, kind: &str, index: usize) -> Value {
    peer.json(&["routing", "status", "--json"])[kind][index].clone()
}

/// Stands before a gateway with TLS; and the authority that vouches for it.
fn seal(gateway: &str) -> (String, String) {
    use futures_rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
    let key = || rcgen::KeyPair::generate().expect("a key");
    let (authority_key, own_key) = (key(), key());
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = authority.self_signed(&authority_key).expect("signed");
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let own = own.signed_by(&own_key, &authority, &authority_key).expect("signed");
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(ring::default_provider().into()).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![own.der().clone()], secret).expect("a pair");
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let gateway = gateway.trim_start_matches("http://").to_owned();
    let talk = move |stream: TcpStream| -> std::io::Result<()> {
        let mut sealed = StreamOwned::new(ServerConnection::new(config.clone()).expect("a connection"), stream);
        let mut plain = TcpStream::connect(&gateway)?;
        loop {
            plain.write_all(&head(&mut sealed)?)?;
            let answer = head(&mut plain)?;
            let told = String::from_utf8_lossy(&answer).to_ascii_lowercase();
            let length = told.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            plain.read_exact(&mut body)?;
            sealed.write_all(&answer)?;
            sealed.write_all(&body)?;
            sealed.flush()?;
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            std::thread::spawn(move || talk(stream).ok());
        }
    });
    (format!("https://localhost:{port}"), authority.pem())
}

/// All up to the empty line.
fn head(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// Answers every request alike.
fn serve(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let talk = move |mut stream: TcpStream| {
        let mut read = [0; 4096];
        while stream.read(&mut read).is_ok_and(|length| length > 0) && stream.write_all(answer).is_ok() {}
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || talk(stream));
        }
    });
    url
}

#[test]
fn a_folder_that_only_a_gateway_has_is_pinned_past_one_that_lies_and_read_when_it_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let giver = cluster(folder.path(), "giver", "", &[]);
    let source = sample(folder.path());
    let root = add(&giver, &source);
    let lies = serve(b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ipld.raw\r\ncontent-length: 4\r\n\r\nlies");
    let reader = cluster(folder.path(), "reader", &format!("gateways = [{lies:?}, {:?}]", giver.gateway()), &[]);
    assert_eq!(reader.json(&["routing", "status", "--json"])["on"], true);
    reader.say(&["pin", "add", &root, "--wait", "1"]);
    let (bad, good) = (server(&reader, "gateways", 0), server(&reader, "gateways", 1));
    assert_eq!((&bad["url"], &bad["state"], &bad["given"]), (&Value::from(lies.clone()), &"put aside".into(), &0.into()), "{bad}");
    assert!(text(&bad["reason"]).contains("sent something else") && bad["until"].is_string(), "{bad}");
    // The root, then all as one archive.
    assert_eq!(
        (&good["state"], &good["asked"], &good["given"], &good["failed"]),
        (&"ok".into(), &2.into(), &2.into(), &0.into()),
        "{good}"
    );
    assert!(good["bytes"].as_u64().is_some_and(|bytes| bytes > 3_000_000), "{good}");
    let said = reader.say(&["routing", "status"]);
    assert!(said.contains("DHT: off") && said.contains(&format!("gateway {lies}: put aside until ")), "{said}");
    assert!(said.contains(&format!("gateway {}: ok", giver.gateway())), "{said}");
    drop(giver);
    let copy = folder.path().join("copy");
    reader.say(&["get", &root, "-o", copy.to_str().expect("a path")]);
    let below = |root: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        files(root).into_iter().map(|(path, data)| (path.strip_prefix(root).expect("below").to_owned(), data)).collect()
    };
    assert!(below(&copy) == below(&source));

    // What nobody has: everybody who was asked is named.
    let nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let (status, body) = http(reader.gateway(), "GET", &format!("/ipfs/{nowhere}"), &[], b"");
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(
        status == 504 && said.contains(&format!("gateway {lies}: sent something else")) && said.contains("again in"),
        "{status} {said}"
    );
}

/// A cluster that holds one file of 700,000 sevens; its root.
fn giver_of_data(folder: &Path) -> (Peer, String) {
    let giver = cluster(folder, "giver", "", &[]);
    let path = folder.join("data");
    std::fs::write(&path, vec![7; 700_000]).expect("written");
    let root = add(&giver, &path);
    (giver, root)
}

#[test]
fn content_and_names_are_found_through_a_router_and_fetched_from_the_node_it_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let (giver, root) = giver_of_data(folder.path());
    let published = text(&giver.json(&["name", "publish", &format!("/ipfs/{root}"), "--json"])["name"]);
    let reader = cluster(folder.path(), "reader", &format!("delegated = [\"{}/routing/v1\"]", giver.gateway()), &[]);
    let found = reader.json(&["routing", "findprovs", &root, "--json"]);
    assert_eq!(found[0]["node"], giver.ready["node"]);
    let (status, body) = http(reader.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
    assert!(status == 200 && body == vec![7; 700_000], "{status}");
    let contact = reader.json(&["routing", "findpeer", &text(&giver.ready["node"]), "--json"]);
    assert!(contact["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty()), "{contact}");
    let resolved = reader.json(&["name", "resolve", &published, "--json"]);
    assert_eq!((text(&resolved["path"]), text(&resolved["steps"][0]["from"])), (format!("/ipfs/{root}"), "routing".to_owned()));
    let router = server(&reader, "routers", 0);
    assert!(router["state"] == "ok" && router["given"].as_u64().is_some_and(|given| given >= 3), "{router}");
    // Nothing is told to it.
    let own = reader.json(&["name", "publish", &format!("/ipfs/{root}"), "--json"]);
    assert_eq!(own["told"].as_array().map(Vec::len), Some(0), "{own}");
    let refused = reader.run(&["routing", "provide", &root]);
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn a_gateway_behind_tls_gives_to_who_trusts_its_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let (giver, root) = giver_of_data(folder.path());
    let (url, authority) = seal(giver.gateway());
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority).expect("written");
    let trusting = cluster(folder.path(), "trusting", &format!("gateways = [{url:?}]\nca = {ca:?}"), &[]);
    let (status, body) = http(trusting.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
    assert!(status == 200 && body == vec![7; 700_000], "{status} {}", server(&trusting, "gateways", 0));
    let other = cluster(folder.path(), "other", &format!("gateways = [{url:?}]"), &[]);
    let (status, body) = http(other.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 504 && said.contains("TLS with localhost"), "{status} {said}");
}

#[test]
fn two_that_name_each_other_do_not_ask_in_circles() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = cluster(folder.path(), "one", "", &[]);
    let gateway = one.gateway().trim_start_matches("http://").to_owned();
    let naming = |peer: &str| format!("gateways = [{peer:?}]\ndelegated = [{peer:?}]");
    let two = cluster(folder.path(), "two", &naming(one.gateway()), &[]);
    drop(one);
    configure(folder.path(), "one", &naming(two.gateway()));
    let one = Peer::start(folder.path(), "one", &["up"], &["--gateway", &gateway]);
    // Nobody has it: both say so in moments, and neither holds it against the other.
    let nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let begun = Instant::now();
    let (status, body) = http(one.gateway(), "GET", &format!("/ipfs/{nowhere}?format=raw"), &[], b"");
    assert_eq!(status, 504, "{}", String::from_utf8_lossy(&body));
    assert!(begun.elapsed() < LIMIT);
    for (peer, asked) in [(&one, true), (&two, false)] {
        let (gateway, router) = (server(peer, "gateways", 0), server(peer, "routers", 0));
        assert_eq!(gateway["asked"].as_u64().is_some_and(|times| times > 0), asked, "who is asked does not ask in turn: {gateway}");
        assert!(router["failed"] == 0, "{router}");
    }
    // What one of them has, the other gives.
    let path = folder.path().join("data");
    std::fs::write(&path, "something").expect("written");
    let root = add(&two, &path);
    let got = until("it is given", LIMIT, || {
        let (status, body) = http(one.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
        (status == 200).then_some(body)
    });
    assert_eq!(got, b"something");
}

#[test]
fn mistakes_in_addresses_are_named_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "peer", "gateways = [\"ipfs.io\"]");
    let error = Peer::try_start(folder.path(), "peer", &["up"], &[]).err().expect("refused");
    assert!(error.contains("gateways: \"ipfs.io\" is no URL") && error.contains("https://example.org"), "{error}");
}
