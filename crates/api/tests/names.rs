//! Names through the doors, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::client::{Client, FILE, add, ask, ask_with};
use common::twin::own_name;
use common::{Served, serve_gateway, serve_proxy, serve_rest};
use serde_json::Value;
use types::Cid;

/// A folder with `sub/file` in the node of a door; its root.
async fn folder(twin: &common::Twin) -> Cid {
    let rest = serve_rest().await;
    let body = [(FILE, "top%2Fsub%2Ffile", &b"content"[..]), (FILE, "top%2Freadme", b"read me")];
    let answer = add(rest.address, "", &body).await;
    let root = answer.lines().iter().find(|line| line["name"] == "top").unwrap()["cid"].as_str().unwrap().parse().unwrap();
    let mut open = vec![root];
    while let Some(cid) = open.pop() {
        let data = ipfs::Blocks::get(&*rest.twin.node, &cid, &ipfs::Source::local()).await.unwrap();
        open.extend(dag::links(&cid, &data).unwrap());
        ipfs::Blocks::put(&*twin.node, &types::Owner::User, vec![dag::Block { cid, data }]).await.unwrap();
    }
    root
}

async fn publish(served: &Served, query: &str) -> Value {
    let answer = ask(served.address, "POST", &format!("/pinfold/v1/names?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// A gateway whose own name leads to a folder.
async fn gateway_with_name(lifetime: u64) -> (Served, Cid) {
    let served = serve_gateway().await;
    let root = folder(&served.twin).await;
    let asked = peer::names::Publish {
        key: "self".into(),
        value: root.to_string(),
        lifetime: std::time::Duration::from_secs(lifetime),
        ttl: None,
        sequence: None,
    };
    served.twin.names.publish(&asked).await.unwrap();
    (served, root)
}

#[tokio::test]
async fn the_gateway_shows_what_names_lead_to() {
    let (served, root) = gateway_with_name(200).await;
    let name = own_name();
    let answer = ask(served.address, "GET", &format!("/ipns/{name}/sub/file")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "content"));
    assert_eq!(answer.header("x-ipfs-path"), format!("/ipns/{name}/sub/file"));
    assert!(answer.header("x-ipfs-roots").starts_with(&root.to_string()));
    let age: u64 = answer.header("cache-control").strip_prefix("public, max-age=").unwrap().parse().unwrap();
    assert!((100..=200).contains(&age), "the record's time to live, not for ever: {age}");
    let etag = answer.header("etag").to_owned();
    let again = ask_with(served.address, "GET", &format!("/ipns/{name}/sub/file"), &[("If-None-Match", &etag)]).await;
    assert!(again.status == 304 && !again.header("cache-control").contains("immutable"));

    // The same name as a peer id, by a table, and by DNS with a path in the link.
    let key: types::PeerId = name.parse().unwrap();
    for path in [format!("/ipns/{key}/sub/file"), "/ipns/docs.example.org/sub/file".into(), "/ipns/WWW.example.org/file".into()] {
        let answer = ask(served.address, "GET", &path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "content"), "{path}");
    }
    let dns = ask(served.address, "GET", "/ipns/www.example.org/file").await;
    assert_eq!(dns.header("cache-control"), "public, max-age=7", "the shortest on the way");

    // Listings link below the name; folders end with a slash.
    let listing = ask(served.address, "GET", &format!("/ipns/{name}/")).await;
    assert!(listing.status == 200 && listing.text().contains("href=\"./sub\""), "{}", listing.text());
    assert!(listing.header("cache-control").starts_with("public, max-age=1"), "{}", listing.header("cache-control"));
    let moved = ask(served.address, "GET", &format!("/ipns/{name}/sub")).await;
    assert_eq!((moved.status, moved.header("location")), (301, format!("/ipns/{name}/sub/").as_str()));

    // Trustless forms.
    let raw = ask(served.address, "GET", &format!("/ipns/{name}/sub/file?format=raw")).await;
    assert!(raw.status == 200 && raw.header("content-type") == "application/vnd.ipld.raw" && raw.text().contains("content"));
    assert_eq!(ask(served.address, "GET", &format!("/ipns/{name}?format=car")).await.status, 200);
}

#[tokio::test]
async fn the_gateway_gives_records_to_those_who_check_themselves() {
    let (served, root) = gateway_with_name(1000).await;
    let name = own_name();
    for (query, headers) in [("?format=ipns-record", &[][..]), ("", &[("Accept", "application/vnd.ipfs.ipns-record")])] {
        let answer = ask_with(served.address, "GET", &format!("/ipns/{name}{query}"), headers).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/vnd.ipfs.ipns-record"));
        let record = peer::names::verified(&name.parse().unwrap(), &answer.body).unwrap();
        assert_eq!(record.entry.value, format!("/ipfs/{root}").into_bytes());
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
        assert!(answer.header("content-disposition").contains(&format!("{name}.ipns-record")));
        let known = [("If-None-Match", answer.header("etag")), ("Accept", "application/vnd.ipfs.ipns-record")];
        assert_eq!(ask_with(served.address, "GET", &format!("/ipns/{name}"), &known).await.status, 304);
    }
    for (target, status) in [
        (format!("/ipns/{name}/sub?format=ipns-record"), 400),
        ("/ipns/docs.example.org?format=ipns-record".to_owned(), 400),
        (format!("/ipfs/{root}?format=ipns-record"), 400),
        ("/ipns/a.example.org/".to_owned(), 508),
        ("/ipns/k51qzi5uqu5dh8l6sz5pr1l9kn7ud9wj2g2rum86w1gdc72vmpgtiuuzg13jme".to_owned(), 404),
        ("/ipns/k51qzi5uqu5dh8l6sz5pr1l9kn7ud9wj2g2rum86w1gdc72vmpgtiuuzg13jme?format=ipns-record".to_owned(), 404),
    ] {
        let answer = ask(served.address, "GET", &target).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
    }
    let cached = [("Cache-Control", "only-if-cached")];
    let answer = ask_with(served.address, "GET", "/ipns/www.example.org/file", &cached).await;
    assert_eq!(answer.status, 404, "DNS is not asked: {}", answer.text());
}

#[tokio::test]
async fn an_ended_record_is_not_believed() {
    let (served, _) = gateway_with_name(1).await;
    let name = own_name();
    let answer = loop {
        let answer = ask(served.address, "GET", &format!("/ipns/{name}/readme")).await;
        if answer.status != 200 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(answer.status == 502 && answer.text().contains("ended at"), "{}", answer.text());
}

#[tokio::test]
async fn keys_and_names_over_rest() {
    let served = serve_rest().await;
    let root = folder(&served.twin).await;
    let keys = ask(served.address, "GET", "/pinfold/v1/keys").await.json();
    assert_eq!((keys["keys"][0]["key"].as_str(), keys["keys"][0]["name"].as_str()), (Some("self"), Some(own_name().as_str())));
    let made = ask(served.address, "POST", "/pinfold/v1/keys/my%20site").await.json();
    let name = made["name"].as_str().unwrap();
    assert!(made["type"] == "ed25519" && name.starts_with("k51"));
    for (method, target, status) in [
        ("POST", "/pinfold/v1/keys/my%20site", 409),
        ("POST", "/pinfold/v1/keys/self", 400),
        ("POST", "/pinfold/v1/keys/nobody/rename?to=x", 404),
        ("DELETE", "/pinfold/v1/keys/nobody", 404),
        ("PUT", "/pinfold/v1/keys", 405),
        ("POST", "/pinfold/v1/keys/my%20site/rename?to=site", 204),
        ("GET", "/pinfold/v1/names/nonsense", 400),
        ("GET", "/pinfold/v1/names/a.example.org", 508),
        ("POST", "/pinfold/v1/names?key=site&path=/ipfs/nonsense", 400),
        ("POST", "/pinfold/v1/names?key=nobody&path=bafkqaaa", 404),
        ("POST", "/pinfold/v1/names?key=site&path=bafkqaaa&lifetime=1h&ttl=2h", 400),
    ] {
        let answer = ask(served.address, method, target).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    }
    let slip = ask(served.address, "POST", &format!("/pinfold/v1/names?key=site&path=/ipfs/{root}/nothing")).await;
    assert!(slip.status == 400 && slip.text().contains("leads nowhere here"), "{}", slip.text());
    assert_eq!(publish(&served, &format!("key=site&path=/ipfs/{root}/nothing&resolve=false")).await["sequence"], 0);
    let published = publish(&served, &format!("key=site&path=/ipfs/{root}/sub&ttl=10s&lifetime=1h")).await;
    assert_eq!((published["sequence"].as_u64(), published["name"].as_str()), (Some(1), Some(name)));
    assert_eq!(publish(&served, &format!("path=/ipns/{name}")).await["value"], format!("/ipns/{name}"));

    let found = ask(served.address, "GET", &format!("/pinfold/v1/names/{}", own_name())).await.json();
    assert_eq!((found["path"].as_str(), found["ttl_seconds"].as_u64()), (Some(format!("/ipfs/{root}/sub").as_str()), Some(10)));
    assert_eq!(found["steps"][1]["from"], "own record");
    let step = ask(served.address, "GET", &format!("/pinfold/v1/names/{}?recursive=false", own_name())).await.json();
    assert_eq!(step["path"], format!("/ipns/{name}"));
    let listed = ask(served.address, "GET", "/pinfold/v1/names").await.json();
    let keys: Vec<&str> = listed["names"].as_array().unwrap().iter().map(|name| name["key"].as_str().unwrap()).collect();
    assert!(keys.len() == 2 && keys.contains(&"site") && keys.contains(&"self"), "{listed}");

    // Content by name, and pins.
    let file = ask(served.address, "GET", &format!("/pinfold/v1/cat/ipns/{name}/file")).await;
    assert_eq!((file.status, file.text().as_str()), (200, "content"));
    let pinned = ask(served.address, "POST", &format!("/pins/ipns/{name}/file")).await;
    assert_eq!(pinned.status, 200, "{}", pinned.text());
    let unknown = ask(served.address, "POST", "/pins/ipns/nothing.example.org").await;
    assert!(unknown.status == 500 && unknown.text().contains("_dnslink.nothing.example.org"), "{}", unknown.text());

    // Records out and in.
    let record = ask(served.address, "GET", &format!("/pinfold/v1/records/{name}")).await.body;
    let other = serve_rest().await;
    let mut client = Client::connect(other.address).await;
    let taken = client.ask("POST", &format!("/pinfold/v1/records/{name}"), &[], &record).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let mut changed = record.clone();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    let refused = client.ask("POST", &format!("/pinfold/v1/records/{name}"), &[], &changed).await;
    assert!(refused.status == 400 && refused.text().contains("ipns record"), "{}", refused.text());
    let strange = client.ask("POST", &format!("/pinfold/v1/records/{}", own_name()), &[], &record).await;
    assert_eq!(strange.status, 400);
    let large = Client::connect(other.address).await.ask("POST", &format!("/pinfold/v1/records/{name}"), &[], &[0; 20_000]).await;
    assert_eq!(large.status, 400);
}

#[tokio::test]
async fn the_proxy_resolves_names_as_kubo() {
    let served = serve_proxy().await;
    let root = folder(&served.twin).await;
    let asked = peer::names::Publish {
        key: "self".into(),
        value: root.to_string(),
        lifetime: std::time::Duration::from_secs(100),
        ttl: None,
        sequence: None,
    };
    served.twin.names.publish(&asked).await.unwrap();
    let found = ask(served.address, "POST", "/api/v0/name/resolve?arg=/ipns/docs.example.org").await.json();
    assert_eq!(found["Path"], format!("/ipfs/{root}"));
    let step = ask(served.address, "POST", "/api/v0/name/resolve?arg=docs.example.org&recursive=false").await.json();
    assert_eq!(step["Path"], format!("/ipns/{}", own_name()));
    let fault = ask(served.address, "POST", "/api/v0/name/resolve?arg=none.example.org").await;
    assert_eq!(fault.status, 500);
    let resolved = ask(served.address, "POST", &format!("/api/v0/resolve?arg=/ipns/{}/sub", own_name())).await;
    assert_eq!(resolved.status, 200);
}
