//! The REST door over real sockets, whole answers against a cluster in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::client::{Client, DIRECTORY, FILE, MULTIPART, add, ask, ask_with, multipart, request};
use common::twin::peer;
use common::{serve_rest, serve_rest_with};
use serde_json::json;
use std::time::Duration;
use types::{Because, ByteCount, Depth, PinOptions};

const CID: &str = "bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y";
const V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

#[tokio::test]
async fn simple_answers_are_those_of_go() {
    let served = serve_rest().await;
    let not_found = "{\"code\":404,\"message\":\"not found\"}\n";
    let version = format!("{{\"version\":\"{}\"}}\n", env!("CARGO_PKG_VERSION"));
    let unpinned = "{\"code\":404,\"message\":\"pin is not part of the pinset\"}\n";
    let unpin = format!("/pins/{CID}");
    let allocation = format!("/allocations/{CID}");
    for (method, target, status, body) in [
        ("GET", "/version", 200, version.as_str()),
        ("GET", "/health", 204, ""),
        ("GET", "/health/alerts", 200, "[]\n"),
        ("GET", "/monitor/metrics", 200, "[\"freespace\",\"numpin\",\"ping\",\"pinqueue\"]\n"),
        ("GET", "/monitor/metrics/nonsense", 200, "[]\n"),
        ("GET", "/nowhere", 404, not_found),
        ("GET", "/pinfold/v1/nowhere", 404, not_found),
        ("GET", "/add", 404, not_found),
        ("POST", "/health", 405, ""),
        ("PUT", "/pins/x", 405, ""),
        ("POST", "/pinfold/v1/status", 405, ""),
        ("GET", "/pins", 204, ""),
        ("GET", "/allocations", 204, ""),
        ("POST", "/pins/recover", 204, ""),
        ("GET", "/pins?filter=nonsense", 400, "{\"code\":400,\"message\":\"invalid filter value\"}\n"),
        ("GET", "/pins?filter=undefined", 400, "{\"code\":400,\"message\":\"invalid filter value\"}\n"),
        ("GET", "/allocations?filter=nonsense", 400, "{\"code\":400,\"message\":\"invalid filter value\"}\n"),
        ("DELETE", unpin.as_str(), 404, unpinned),
        ("GET", allocation.as_str(), 404, unpinned),
        ("POST", "/token", 401, "{\"code\":401,\"message\":\"unauthorized\"}\n"),
    ] {
        let answer = ask(served.address, method, target).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{method} {target}");
        let expected = if status == 405 { "" } else { "application/json" };
        assert_eq!(answer.header("content-type"), expected, "{method} {target}");
    }
}

#[tokio::test]
async fn a_trailing_slash_leads_to_the_path_without() {
    let served = serve_rest().await;
    for (target, location) in
        [("/health/", "/health"), ("/pins/?filter=pinned", "/pins?filter=pinned"), ("//evil.example/", "/evil.example")]
    {
        let answer = ask(served.address, "GET", target).await;
        assert_eq!((answer.status, answer.header("location")), (307, location), "{target}");
    }
}

#[tokio::test]
async fn a_pin_is_written_shown_and_removed() {
    let served = serve_rest().await;
    let query = "replication-min=0&replication-max=0&name=a%20%3Cb%3E&mode=recursive&shard-size=0&user-allocations=&meta-k=v";
    let posted = ask(served.address, "POST", &format!("/pins/ipfs/{CID}?{query}")).await;
    let pin = format!(
        "{{\"replication_factor_min\":0,\"replication_factor_max\":0,\"name\":\"a \\u003cb\\u003e\",\"mode\":\"recursive\",\"shard_size\":0,\
         \"user_allocations\":null,\"expire_at\":\"0001-01-01T00:00:00Z\",\"metadata\":{{\"k\":\"v\"}},\"pin_update\":null,\"origins\":[],\
         \"cid\":\"{CID}\",\"type\":\"pin\",\"allocations\":[\"{}\",\"{}\"],\"max_depth\":-1,\"reference\":null,\"timestamp\":\"2023-11-14T22:13:20Z\"}}\n",
        peer(1),
        peer(2)
    );
    assert_eq!((posted.status, posted.text()), (200, pin.clone()));
    assert_eq!(ask(served.address, "GET", &format!("/allocations/{CID}")).await.text(), pin);
    let listed = ask(served.address, "GET", "/allocations?filter=pin,nonsense").await;
    assert_eq!((listed.text(), listed.trailer("x-stream-error"), listed.header("trailer")), (pin.clone(), Some(""), "X-Stream-Error"));
    assert_eq!(ask(served.address, "GET", "/allocations?filter=shard-pin").await.status, 204);

    let status = ask(served.address, "GET", &format!("/pins/{CID}")).await.json();
    assert_eq!(status["peer_map"][peer(1).to_string()]["status"], "pinned");
    assert_eq!(status["peer_map"][peer(3).to_string()]["status"], "remote");
    assert_eq!(status["allocations"], json!([peer(1).to_string(), peer(2).to_string()]));
    let local = ask(served.address, "GET", &format!("/pins/{CID}?local=true")).await.json();
    assert_eq!(local["peer_map"].as_object().unwrap().len(), 1);

    let removed = ask(served.address, "DELETE", &format!("/pins/ipfs/{CID}")).await;
    assert_eq!((removed.status, removed.text()), (200, pin));
    let unknown = ask(served.address, "GET", &format!("/pins/{CID}")).await;
    assert_eq!((unknown.status, unknown.json()["peer_map"][peer(1).to_string()]["status"].as_str()), (200, Some("unpinned")));
}

#[tokio::test]
async fn direct_mode_is_honoured_on_both_routes() {
    let served = serve_rest().await;
    for route in [format!("/pins/{CID}"), format!("/pins/ipfs/{V0}")] {
        let pin = ask(served.address, "POST", &format!("{route}?mode=direct")).await.json();
        assert_eq!((pin["mode"].as_str(), pin["max_depth"].as_i64()), (Some("direct"), Some(0)));
    }
}

#[tokio::test]
async fn an_update_takes_the_options_of_the_pin_before() {
    let served = serve_rest().await;
    ask(served.address, "POST", &format!("/pins/{CID}?name=old&replication=2&meta-a=1")).await;
    let pin = ask(served.address, "POST", &format!("/pins/ipfs/{V0}?pin-update={CID}&name=new")).await.json();
    assert_eq!(
        (&pin["name"], &pin["replication_factor_min"], &pin["metadata"], &pin["pin_update"]),
        (&json!("new"), &json!(2), &json!({"a": "1"}), &json!(CID))
    );
    assert_eq!(
        ask(served.address, "POST", &format!("/pins/ipfs/{CID}?pin-update=QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")).await.status,
        404
    );
}

#[tokio::test]
async fn a_bad_option_runs_nothing() {
    let served = serve_rest().await;
    for (target, status, message) in [
        (format!("/pins/{CID}?replication-min=x"), 400, "parameter replication-min invalid"),
        (format!("/pins/ipfs/{CID}?expire-in=1ms"), 400, "expire-in duration too short"),
        (format!("/pins/{CID}?replication-min=3&replication-max=2"), 500, "cluster.replication_factor_min is larger than max"),
        (
            format!("/pins/{CID}?replication=9"),
            500,
            "not enough peers to allocate CID. Needed at least: 9. Wanted at most: 9. Available candidates: 3. See logs for more info.",
        ),
        (
            "/pins/ipfs/nonsense".to_owned(),
            400,
            "error parsing path: invalid path \"/ipfs/nonsense\": invalid cid: selected encoding not supported",
        ),
        ("/pins/nonsense".to_owned(), 400, "error decoding Cid: invalid cid: selected encoding not supported"),
    ] {
        let answer = ask(served.address, "POST", &target).await;
        assert_eq!((answer.status, answer.json()), (status, json!({"code": status, "message": message})), "{target}");
    }
    assert!(served.twin.pins.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ids_and_peers_are_shown_as_in_go() {
    let served = serve_rest().await;
    let id = ask(served.address, "GET", "/id").await;
    let keys: Vec<String> = id.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        [
            "id",
            "addresses",
            "cluster_peers",
            "cluster_peers_addresses",
            "version",
            "commit",
            "rpc_protocol_version",
            "error",
            "ipfs",
            "peername"
        ]
    );
    let peers = ask(served.address, "GET", "/peers").await;
    let lines = peers.lines();
    assert_eq!((lines.len(), &lines[0], peers.trailer("x-stream-error")), (3, &id.json(), Some("")));
    assert_eq!(lines[1]["peername"], "bob");
    served.twin.health.lock().unwrap()[1] = cluster::PeerHealth::Down;
    let lines = ask(served.address, "GET", "/peers").await.lines();
    assert_eq!(lines[1]["error"], "the peer is down: last heard of 2023-11-14T22:13:20Z");
    let alerts = ask(served.address, "GET", "/health/alerts").await.json();
    assert_eq!((alerts[0]["name"].as_str(), alerts[0]["peer"].as_str()), (Some("ping"), Some(peer(2).to_string().as_str())));
    let metrics = ask(served.address, "GET", "/monitor/metrics/freespace").await.json();
    assert_eq!(
        (metrics.as_array().unwrap().len(), metrics[0]["value"].as_str(), metrics[0]["weight"].as_i64()),
        (2, Some("500"), Some(500))
    );
    let graph = ask(served.address, "GET", "/health/graph").await.json();
    assert_eq!(graph["cluster_links"][peer(1).to_string()], json!([peer(3).to_string()]));
}

#[tokio::test]
async fn many_pins_stream_in_pages() {
    let served = serve_rest().await;
    for number in 0..2500u32 {
        let block = dag::Block::new(dag::codec::RAW, dag::HashFn::SHA2_256, number.to_be_bytes().to_vec().into()).unwrap();
        served.twin.write(block.cid, PinOptions::default(), Depth::Recursive);
        if number % 1000 == 0 {
            served.twin.waiting.lock().unwrap().insert(block.cid, Because::Queue { before: 3 });
        }
    }
    assert_eq!(ask(served.address, "GET", "/pins").await.lines().len(), 2500);
    assert_eq!(ask(served.address, "GET", "/allocations").await.lines().len(), 2500);
    let queued = ask(served.address, "GET", "/pins?filter=queued").await;
    assert_eq!((queued.lines().len(), queued.trailer("x-stream-error")), (3, Some("")));
    assert_eq!(queued.lines()[0]["peer_map"].as_object().unwrap().len(), 1, "only the peers that match");
    assert_eq!(ask(served.address, "GET", "/pins?filter=pin_error").await.status, 204);
    let cids = format!("/pins?cids={CID},{V0}");
    assert_eq!(ask(served.address, "GET", &cids).await.lines().len(), 2);
    assert_eq!(ask(served.address, "GET", "/pins?cids=x,y").await.status, 400);
    let recovered = ask(served.address, "POST", "/pins/recover").await;
    assert_eq!(recovered.lines().len(), 3);
}

#[tokio::test]
async fn an_added_file_is_told_and_pinned() {
    let served = serve_rest().await;
    let answer = add(served.address, "name=n&stream-channels=true&progress=true", &[(FILE, "hello.txt", b"hello world\n")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        (answer.header("x-chunked-output"), answer.header("cache-control"), answer.header("connection")),
        ("1", "no-cache", "close")
    );
    let cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    let holders = json!([peer(1).to_string(), peer(2).to_string()]);
    assert_eq!(
        answer.lines(),
        [json!({"name": "", "cid": null, "bytes": 12}), json!({"name": "hello.txt", "cid": cid, "size": 20, "allocations": holders})]
    );
    assert_eq!(answer.trailer("x-stream-error"), None);
    let pins = served.twin.pins.lock().unwrap();
    assert_eq!(pins.keys().map(ToString::to_string).collect::<Vec<_>>(), [cid]);
    assert_eq!(pins.values().next().unwrap().options.name, "n");
}

#[tokio::test]
async fn outputs_come_in_the_order_of_go() {
    let served = serve_rest().await;
    let tree: &[(&str, &str, &[u8])] = &[
        (DIRECTORY, "dir", b""),
        (FILE, "dir%2Fa%20b.txt", b"a"),
        (DIRECTORY, "dir%2Fsub", b""),
        (FILE, "dir%2Fsub%2Fc", b"c"),
        ("application/symlink", "dir%2Flink", b"a b.txt"),
        (FILE, "last", b"l"),
    ];
    let names = |query: &'static str| async move {
        let answer = add(served.address, query, tree).await;
        let lines = answer.lines();
        let root = lines.last().unwrap()["cid"].as_str().unwrap().to_owned();
        (lines.iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), root)
    };
    let (plain, root) = names("").await;
    assert_eq!(plain, ["dir/a b.txt", "dir/sub/c", "dir/link", "dir/sub", "dir", "last"]);
    assert_eq!(served.twin.pins.lock().unwrap().keys().map(ToString::to_string).collect::<Vec<_>>(), [root], "the last root alone");
    let (wrapped, _) = names("wrap-with-directory=true").await;
    assert_eq!(wrapped, ["dir/a b.txt", "dir/sub/c", "dir/link", "last", "dir/sub", "dir", ""]);
}

#[tokio::test]
async fn lines_can_be_one_array() {
    let served = serve_rest().await;
    let answer = add(served.address, "stream-channels=false&cid-version=1&no-pin=true", &[(FILE, "f", b"hello world\n")]).await;
    let line = &answer.json()[0];
    assert_eq!((answer.status, line["cid"].as_str()), (200, Some("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4")));
    assert!(served.twin.pins.lock().unwrap().is_empty(), "no-pin");
    *served.twin.limit.lock().unwrap() = Some(ByteCount(1));
    let failed = add(served.address, "stream-channels=false", &[(FILE, "f", b"hello")]).await;
    assert_eq!((failed.status, failed.json()), (500, json!({"code": 500, "message": "no room on any holder"})));
    let failed = add(served.address, "", &[(FILE, "f", b"hello")]).await;
    assert_eq!((failed.status, failed.trailer("x-stream-error")), (200, Some("no room on any holder")));
    assert!(served.twin.pins.lock().unwrap().is_empty());
}

#[tokio::test]
async fn adds_that_make_no_sense_are_refused_before_they_begin() {
    let served = serve_rest().await;
    let file: &[(&str, &str, &[u8])] = &[(FILE, "f", b"x")];
    for (query, parts, status, message) in [
        ("", &[] as &[(&str, &str, &[u8])], 400, "nothing to add: the request has no parts"),
        ("layout=x", file, 400, "layout parameter is invalid"),
        ("chunker=nonsense", file, 400, "unrecognized chunker option: nonsense"),
        ("hash=nonsense", file, 400, "hash function name not known"),
        ("hash=sha2-512", file, 400, "invalid cid: invalid v0 prefix"),
        ("cid-version=2", file, 400, "bad CID Version: unknown CID version: 2"),
        ("progress=maybe", file, 400, "parameter progress invalid"),
        ("replication=9", file, 500, "not enough peers to allocate CID. Needed at least: 9. Wanted at most: 9. Available candidates: 3. "),
    ] {
        let answer = add(served.address, query, parts).await;
        assert_eq!((answer.status, answer.json()["message"].as_str()), (status, Some(message)), "{query}");
    }
    let answer = ask(served.address, "POST", "/add").await;
    assert_eq!((answer.status, answer.json()["message"].as_str()), (400, Some("request Content-Type isn't multipart/form-data")));
}

fn archive(roots: &[&dag::Block], blocks: &[dag::Block]) -> Vec<u8> {
    let roots: Vec<types::Cid> = roots.iter().map(|root| root.cid).collect();
    let sections = blocks.iter().flat_map(dag::car::section).map(|part| part.to_vec());
    std::iter::once(dag::car::header(&roots)).chain(sections).collect::<Vec<_>>().concat()
}

/// A file of four leaves; its blocks, root last.
fn four_leaves() -> Vec<dag::Block> {
    let mut blocks = Vec::new();
    let content: Vec<u8> = (0..1_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    dag::import::import_bytes(content.into(), dag::import::FileOptions::v1(), &mut |block| blocks.push(block)).unwrap();
    blocks
}

#[tokio::test]
async fn a_car_with_one_root_is_pinned_whatever_the_order_of_its_blocks() {
    let blocks = four_leaves();
    let root = blocks.last().unwrap();
    let back: Vec<dag::Block> = blocks.iter().rev().cloned().collect();
    let twice = [&blocks[..], &blocks[..]].concat();
    for blocks in [&blocks, &back, &twice] {
        let served = serve_rest().await;
        let answer = add(served.address, "format=car&name=n", &[(FILE, "a.car", &archive(&[root], blocks))]).await;
        let bytes: usize = back.iter().map(|block| block.data.len()).sum();
        let holders = json!([peer(1).to_string(), peer(2).to_string()]);
        assert_eq!(
            answer.lines(),
            [json!({"name": "a.car", "cid": root.cid.to_string(), "bytes": bytes, "size": 1_000_000, "allocations": holders})]
        );
        assert_eq!(served.twin.pins.lock().unwrap().keys().copied().collect::<Vec<_>>(), [root.cid]);
        use ipfs::Blocks;
        let cids: Vec<types::Cid> = back.iter().map(|block| block.cid).collect();
        assert_eq!(served.twin.node.has(&cids).await.unwrap(), [true; 5]);
    }
}

#[tokio::test]
async fn a_car_that_is_not_whole_or_not_true_leaves_no_pin() {
    let blocks = four_leaves();
    let root = blocks.last().unwrap();
    let without = |left_out: &[usize]| -> Vec<dag::Block> {
        (0..blocks.len()).filter(|at| !left_out.contains(at)).map(|at| blocks[at].clone()).collect()
    };
    let mut forged = blocks.clone();
    forged[2].data = bytes::Bytes::from_static(b"forged");
    let whole = archive(&[root], &blocks);
    let missing = |at: usize, others: &str| {
        format!(
            "the CAR is not complete: block {}{others} below its root is missing, so nothing was pinned; export it again with everything \
             below its root, or add it with no-pin",
            blocks[at].cid
        )
    };
    let forgery = format!("verifying a block of the CAR: {}", dag::verify(&forged[2].cid, &forged[2].data).unwrap_err());
    for (archive, message) in [
        (archive(&[root], &without(&[1])), missing(1, "")),
        (archive(&[root], &without(&[3, 2])), missing(2, " and 1 others")),
        (archive(&[root], &without(&[4])), missing(4, "")),
        (archive(&[root, root], &blocks), "only CAR files with a single root are supported".to_owned()),
        (archive(&[], &blocks), "only CAR files with a single root are supported".to_owned()),
        (archive(&[root], &forged), forgery),
        (whole[..whole.len() - 7].to_vec(), "reading CAR: CAR ends too early".to_owned()),
        (Vec::new(), "reading CAR: CAR ends too early".to_owned()),
    ] {
        let served = serve_rest().await;
        let answer = add(served.address, "format=car", &[(FILE, "a.car", &archive)]).await;
        assert_eq!(answer.trailer("x-stream-error"), Some(message.as_str()));
        assert!(served.twin.pins.lock().unwrap().is_empty(), "{message}");
    }
    let served = serve_rest().await;
    let part = archive(&[root], &without(&[1]));
    let answer = add(served.address, "format=car&no-pin=true", &[(FILE, "a.car", &part)]).await;
    assert_eq!((answer.trailer("x-stream-error"), answer.lines().len()), (None, 1), "a part is taken where no pin is wished");
    let answer = add(served.address, "format=car&wrap-with-directory=true", &[(FILE, "a.car", &whole)]).await;
    assert_eq!((answer.status, answer.json()["message"].as_str()), (400, Some("cannot wrap a CAR file upload")));
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_no_pin() {
    let served = serve_rest().await;
    let body = multipart(&[(FILE, "f", &[7; 3000])]);
    let cut = &body[..body.len() - 30];
    let answer = Client::connect(served.address).await.ask("POST", "/add", &[MULTIPART], cut).await;
    assert_eq!(answer.trailer("x-stream-error"), Some("the request ended in the middle of a part"));
    assert!(served.twin.pins.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_large_file_passes_in_pieces() {
    let served = serve_rest().await;
    let content = vec![42u8; 5 << 20];
    let answer = add(served.address, "progress=true&wait=2", &[(FILE, "f", &content)]).await;
    let lines = answer.lines();
    assert_eq!(lines[lines.len() - 2], json!({"name": "", "cid": null, "bytes": 5 << 20}));
    assert_eq!(answer.trailer("x-stream-error"), None);
}

#[tokio::test]
async fn our_own_questions_are_answered() {
    let served = serve_rest().await;
    ask(served.address, "POST", &format!("/pins/{CID}")).await;
    let why = ask(served.address, "GET", &format!("/pinfold/v1/why/{CID}")).await.json();
    assert_eq!((why["summary"].as_str(), why["peers"][2]["state"].as_str()), (Some("safe: 2 of 2 copies"), Some("remote")));
    let wait = ask(served.address, "GET", &format!("/pinfold/v1/wait/{CID}?copies=3&timeout=1ms")).await.json();
    assert_eq!((wait["copies"].as_u64(), wait["done"].as_bool()), (Some(2), Some(false)));
    let status = ask(served.address, "GET", "/pinfold/v1/status").await.json();
    assert_eq!((status["pins"].as_u64(), status["health"].as_str()), (Some(1), Some("good")));
    let peers = ask(served.address, "GET", "/pinfold/v1/peers").await.json();
    assert_eq!((peers[1]["name"].as_str(), peers[1]["space"]["limit"].as_u64()), (Some("bob"), Some(1000)));
    assert_eq!(ask(served.address, "POST", "/pinfold/v1/invite?ttl=1h").await.json()["invite"], "invite-for-3600s");
    assert_eq!(ask(served.address, "POST", "/pinfold/v1/leave").await.json()["stranded"], 7);
    assert_eq!(ask(served.address, "POST", "/pinfold/v1/leave?purge=true").await.status, 503);
    assert_eq!(ask(served.address, "POST", "/pinfold/v1/removals/approve").await.status, 204);
    assert_eq!(ask(served.address, "POST", "/pinfold/v1/invite?ttl=soon").await.status, 400);
}

#[tokio::test]
async fn events_begin_with_refresh_and_tell_changes() {
    let served = serve_rest().await;
    let mut client = Client::connect(served.address).await;
    client.send(&request("GET", "/pinfold/v1/events", &[], b"")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-type"), head.header("cache-control")), (200, "text/event-stream", "no-store"));
    let mut seen = Vec::new();
    let mut until = async |wanted: &str| {
        loop {
            let line = client.line().await;
            let is_wanted = line.contains(wanted);
            seen.push(line);
            if is_wanted {
                return seen.last().cloned().unwrap();
            }
        }
    };
    until("event: refresh").await;
    ask(served.address, "POST", &format!("/pins/{CID}")).await;
    until("event: pins").await;
    assert!(until("data:").await.contains(CID));
    for _ in 0..200 {
        let _ = served.twin.live.send(peer::Live::Peers);
    }
    until("event: refresh").await;
    served.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), served.handle).await.expect("streams end at the stop").unwrap();
}

#[tokio::test]
async fn strangers_and_giants_are_refused() {
    let served = serve_rest().await;
    for (method, headers, status) in [
        ("GET", [("Host", "evil.example"), ("X", "x")], 403),
        ("POST", [("Origin", "http://evil.example"), ("X", "x")], 403),
        ("POST", [("Origin", "http://127.0.0.1"), ("X", "x")], 200),
    ] {
        assert_eq!(ask_with(served.address, method, &format!("/pins/{CID}"), &headers).await.status, status, "{method} {headers:?}");
    }
    let long = "x".repeat(300_000);
    let huge = ask_with(served.address, "GET", "/id", &[("X-Long", &long)]).await;
    assert_eq!(huge.status, 431);
    let many: Vec<(&str, &str)> = vec![("X-Many", "1"); 200];
    assert_eq!(ask_with(served.address, "GET", "/id", &many).await.status, 431);
    let listed = format!("/pins?cids={}", vec![CID; 1000].join(","));
    assert_eq!(ask(served.address, "GET", &listed).await.lines().len(), 1000, "more than Go takes");
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_again() {
    let served = serve_rest_with(|options| options.limits.requests = 1).await;
    let mut events = Client::connect(served.address).await;
    events.send(&request("GET", "/pinfold/v1/events", &[], b"")).await;
    events.head().await;
    let refused = ask(served.address, "GET", "/id").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    drop(events);
    for _ in 0..100 {
        if ask(served.address, "GET", "/id").await.status == 200 {
            return;
        }
        let _ = served.twin.live.send(peer::Live::Peers);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the place of a client that went away is given on");
}

#[tokio::test]
async fn a_silent_sender_is_cut() {
    let served = serve_rest_with(|options| options.limits.body_idle = Duration::from_millis(50)).await;
    let mut client = Client::connect(served.address).await;
    client.send(b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000\r\n\r\n--B\r\n").await;
    assert_eq!(client.head().await.status, 400);
}

#[tokio::test]
async fn silent_connections_make_room_for_those_who_ask() {
    let served = serve_rest_with(|options| options.limits.connections = 3).await;
    let mut busy = Client::connect(served.address).await;
    busy.send(&request("GET", "/pinfold/v1/events", &[], b"")).await;
    busy.head().await;
    let mut silent = Vec::new();
    for head in [&b""[..], b"GET /id HTTP/1.1\r\nHost: 127", b"", b"POST /pins"] {
        let mut client = Client::connect(served.address).await;
        client.send(head).await;
        silent.push(client);
    }
    for _ in 0..5 {
        assert_eq!(ask(served.address, "GET", "/id").await.status, 200);
    }
    let _ = served.twin.live.send(peer::Live::Peers);
    assert!(!busy.line().await.is_empty(), "who is being answered keeps its place");
}

#[tokio::test]
async fn slow_uploads_leave_room_for_questions() {
    let served = serve_rest_with(|options| options.limits.uploads = 2).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(served.address).await;
        client.send(b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000\r\n\r\n--B\r\n").await;
        slow.push(client);
    }
    // Both have their place once a third sender is refused.
    for _ in 0..200 {
        let refused = add(served.address, "", &[(FILE, "f", b"x")]).await;
        if refused.status == 503 {
            assert_eq!(ask(served.address, "GET", "/id").await.status, 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a third sender was never told to come again");
}

#[tokio::test]
async fn who_does_not_read_the_answer_is_cut() {
    let served = serve_rest_with(|options| {
        options.limits.body_idle = Duration::from_millis(300);
        options.limits.requests = 1;
    })
    .await;
    let big = vec![7u8; 48 << 20];
    let added = add(served.address, "", &[(FILE, "f", &big)]).await;
    let cid = added.lines().last().and_then(|line| line["cid"].as_str().map(str::to_owned)).expect("a root");
    let mut lazy = Client::connect(served.address).await;
    lazy.send(&request("GET", &format!("/pinfold/v1/cat/{cid}"), &[], b"")).await;
    for _ in 0..400 {
        if ask(served.address, "GET", "/id").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("its place was never given on");
}

#[tokio::test]
async fn names_of_any_bytes_arrive_as_they_were_sent() {
    let served = serve_rest().await;
    let parts: [(&str, &str, &[u8]); 3] = [(DIRECTORY, "d", b""), (FILE, "d/a%FF%FEb", b"one"), (FILE, "d/a%FF%FFb", b"two")];
    let added = add(served.address, "", &parts).await;
    let cid = added.lines().last().and_then(|line| line["cid"].as_str().map(str::to_owned)).expect("a root");
    let listed = ask(served.address, "GET", &format!("/pinfold/v1/ls/{cid}")).await;
    let names: Vec<String> = listed.lines().iter().filter_map(|line| line["escaped"].as_str().map(str::to_owned)).collect();
    assert_eq!(names, ["a%FF%FEb", "a%FF%FFb"], "two names that differ only in bytes that are no text stay two");
    assert_eq!(ask(served.address, "GET", &format!("/pinfold/v1/cat/{cid}/a%FF%FFb")).await.body, b"two");
}

#[tokio::test]
async fn requests_in_flight_end_before_the_door() {
    let served = serve_rest().await;
    let mut client = Client::connect(served.address).await;
    client.send(&request("GET", &format!("/pinfold/v1/wait/{CID}?copies=9&timeout=1s"), &[], b"")).await;
    ask(served.address, "POST", &format!("/pins/{CID}")).await;
    served.stop.cancel();
    assert_eq!(client.answer("GET").await.status / 100, 4, "the pin was not there when it was asked");
    tokio::time::timeout(Duration::from_secs(5), served.handle).await.expect("the door ends").unwrap();
    assert!(tokio::net::TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let served = serve_rest().await;
    let mut client = Client::connect(served.address).await;
    for _ in 0..3 {
        assert_eq!(client.ask("GET", "/peers", &[], b"").await.trailer("x-stream-error"), Some(""));
        assert_eq!(client.ask("GET", "/version", &[], b"").await.status, 200);
    }
}

#[tokio::test]
async fn whoever_is_refused_while_sending_reads_why() {
    let served = serve_rest().await;
    let big = vec![1u8; 8 << 20];
    let answer = add(served.address, "replication=9", &[(FILE, "f", &big)]).await;
    assert_eq!((answer.status, answer.json()["code"].as_u64()), (500, Some(500)));
    *served.twin.limit.lock().unwrap() = Some(ByteCount(1));
    let answer = add(served.address, "", &[(FILE, "f", &big)]).await;
    assert_eq!(answer.trailer("x-stream-error"), Some("no room on any holder"));
}

const EXPORTED: &str = concat!(
    r#"{"replication_factor_min":2,"replication_factor_max":3,"name":"a <name>","mode":"recursive","shard_size":0,"#,
    r#""user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":{"k":"v"},"pin_update":null,"origins":[],"#,
    r#""cid":"bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y","type":"pin","allocations":[],"max_depth":-1,"#,
    r#""reference":null,"timestamp":"2026-11-23T16:39:26Z"}"#,
    "\n"
);

#[tokio::test]
async fn the_pinset_goes_in_and_out_as_lines() {
    let served = serve_rest().await;
    let line = EXPORTED.replace("a <name>", "a \\u003cname\\u003e");
    let answer = ask(served.address, "GET", "/pinfold/v1/state").await;
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    for (counts, case) in [("\"added\":1,\"changed\":0,\"same\":0", "new"), ("\"added\":0,\"changed\":0,\"same\":1", "again")] {
        let answer = send(&served, "/pinfold/v1/state", format!("{line}\n  \n").as_bytes()).await;
        let text = answer.text();
        let last = text.lines().last().unwrap();
        assert_eq!(answer.status, 200, "{text}");
        assert!(
            last.contains("\"done\":true")
                && last.contains("\"lines\":3")
                && sorted(last) == sorted(&format!("{{{counts},\"done\":true,\"lines\":3,\"refused\":0}}")),
            "{case}: {text}"
        );
    }
    let answer = ask(served.address, "GET", "/pinfold/v1/state").await;
    assert_eq!((answer.status, answer.text()), (200, line.clone()));
    assert_eq!(ask(served.address, "GET", "/allocations").await.text(), line);
    let failing = line.replace("a \\u003cname\\u003e", "unwritable");
    let answer = send(&served, "/pinfold/v1/state", failing.as_bytes()).await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("the disk is full (lines 1 to 1; those before are merged"), "{}", answer.text());
}

async fn send(served: &common::Served, target: &str, body: &[u8]) -> common::client::Answer {
    Client::connect(served.address).await.ask("POST", target, &[], body).await
}

fn sorted(object: &str) -> std::collections::BTreeMap<String, serde_json::Value> {
    serde_json::from_str(object).unwrap()
}

#[tokio::test]
async fn lines_that_are_no_pin_are_named() {
    let served = serve_rest().await;
    let line = EXPORTED.replace("a <name>", "name");
    let unknown = line.replace(r#""type":"pin""#, r#""type":"other""#);
    for (bad, why) in [("{}\n", "the pin has no cid"), ("nonsense\n", "expected"), (unknown.as_str(), "its type is none of")] {
        let body = format!("{line}{bad}{line}");
        let answer = send(&served, "/pinfold/v1/state", body.as_bytes()).await;
        let text = answer.text();
        assert!(answer.status == 400 && text.contains("line 2 is no pin") && text.contains("the 1 lines before it are merged"), "{text}");
        assert!(text.contains(why), "{text}");
        let answer = send(&served, "/pinfold/v1/state?skip-bad=true", body.as_bytes()).await;
        let text = answer.text();
        assert!(text.contains("\"line\":2") && text.contains("\"refused\":1"), "{text}");
        assert!(answer.status == 200 && text.contains("\"same\":2"), "{text}");
    }
    let answer = send(&served, "/pinfold/v1/state?skip-bad=perhaps", b"").await;
    assert_eq!(answer.status, 400);
    assert_eq!(ask(served.address, "DELETE", "/pinfold/v1/state").await.status, 405);
}
