//! The proxy over real sockets, against a cluster in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::client::{Client, FILE, MULTIPART, ask, ask_with, multipart};
use common::serve_proxy;
use serde_json::json;

const CID: &str = "bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y";
const HELLO: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

#[tokio::test]
async fn pins_are_those_of_the_cluster() {
    let served = serve_proxy().await;
    for (target, status, body) in [
        (format!("/api/v0/pin/add?arg={CID}&arg=/ipfs/{HELLO}&name=n&progress=true"), 200, json!({"Pins": [CID, HELLO]})),
        (
            "/api/v0/pin/ls?names=true".to_owned(),
            200,
            json!({"Keys": {CID: {"Type": "recursive", "Name": "n"}, HELLO: {"Type": "recursive", "Name": "n"}}}),
        ),
        (format!("/api/v0/pin/ls?arg={CID}"), 200, json!({"Keys": {CID: {"Type": "recursive"}}})),
        ("/api/v0/pin/ls?type=direct".to_owned(), 200, json!({"Keys": {}})),
        (format!("/api/v0/pin/rm/{CID}"), 200, json!({"Pins": [CID]})),
        (format!("/api/v0/pin/rm?arg={CID}"), 500, json!({"Message": "pin is not part of the pinset", "Code": 0, "Type": "error"})),
        (
            format!("/api/v0/pin/ls?arg={CID}"),
            500,
            json!({"Message": format!("Error: path '{CID}' is not pinned"), "Code": 0, "Type": "error"}),
        ),
        (format!("/api/v0/pin/add?arg={CID}&recursive=false"), 200, json!({"Pins": [CID]})),
        ("/api/v0/pin/ls?type=direct".to_owned(), 200, json!({"Keys": {CID: {"Type": "direct"}}})),
        (format!("/api/v0/pin/update?arg={HELLO}&arg={CID}"), 200, json!({"Pins": [HELLO, CID]})),
        ("/api/v0/pin/ls?names=1".to_owned(), 200, json!({"Keys": {CID: {"Type": "recursive", "Name": "n"}}})),
        ("/api/v0/pin/update".to_owned(), 400, json!({"Message": "argument \"from-path\" is required", "Code": 0, "Type": "error"})),
        ("/api/v0/repo/stat".to_owned(), 200, json!({"RepoSize": 1200, "StorageMax": 3000})),
        (format!("/api/v0/resolve?arg={CID}"), 200, json!({"Path": format!("/ipfs/{CID}")})),
    ] {
        let answer = ask(served.address, "POST", &target).await;
        assert_eq!((answer.status, answer.json()), (status, body), "{target}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let lines = ask(served.address, "POST", "/api/v0/pin/ls?stream=true").await;
    assert_eq!(lines.text(), format!("{{\"Cid\":\"{CID}\",\"Type\":\"recursive\"}}\n"));
}

#[tokio::test]
async fn what_is_added_is_read_back() {
    let served = serve_proxy().await;
    let body = multipart(&[(FILE, "hello.txt", b"hello world\n")]);
    let added = Client::connect(served.address).await.ask("POST", "/api/v0/add?progress=true&pin-name=greeting", &[MULTIPART], &body).await;
    assert_eq!(added.lines(), [json!({"Name": "", "Bytes": 12}), json!({"Name": "hello.txt", "Hash": HELLO, "Size": "20"})]);
    assert_eq!(served.twin.pins.lock().unwrap().values().next().unwrap().options.name, "greeting");
    for (target, expected) in
        [(format!("/api/v0/cat?arg={HELLO}"), "hello world\n"), (format!("/api/v0/cat?arg=/ipfs/{HELLO}&offset=6&length=5"), "world")]
    {
        let answer = ask(served.address, "POST", &target).await;
        assert_eq!((answer.text().as_str(), answer.header("x-stream-output")), (expected, "1"), "{target}");
    }
    let block = ask(served.address, "POST", &format!("/api/v0/block/get?arg={HELLO}")).await;
    assert_eq!(block.body.len(), 20);
    let stat = ask(served.address, "POST", &format!("/api/v0/block/stat?arg={HELLO}")).await;
    assert_eq!(stat.json(), json!({"Key": HELLO, "Size": 20}));
}

#[tokio::test]
async fn what_is_not_offered_changes_nothing() {
    let served = serve_proxy().await;
    let body = multipart(&[(FILE, "f", b"x")]);
    let refused = Client::connect(served.address).await.ask("POST", "/api/v0/add?only-hash=true", &[MULTIPART], &body).await;
    assert_eq!(refused.status, 500);
    let unpinned = Client::connect(served.address).await.ask("POST", "/api/v0/add?pin=false", &[MULTIPART], &body).await;
    assert_eq!(unpinned.status, 200);
    let pin = format!("/api/v0/pin/add?arg={CID}");
    for (method, target, headers, status) in [
        ("GET", pin.as_str(), ("X", "x"), 405),
        ("POST", pin.as_str(), ("Origin", "http://evil.example"), 403),
        ("POST", pin.as_str(), ("Host", "evil.example"), 403),
        ("POST", "/api/v0/swarm/peers", ("X", "x"), 404),
        ("POST", "/api/v0/pin/add", ("X", "x"), 400),
        ("POST", "/api/v0/pin/add?arg=foo", ("X", "x"), 400),
        ("GET", "/webui", ("X", "x"), 404),
    ] {
        assert_eq!(ask_with(served.address, method, target, &[headers]).await.status, status, "{method} {target}");
    }
    assert!(served.twin.pins.lock().unwrap().is_empty());
}
