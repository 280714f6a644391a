//! The status page over a real socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use cluster::{Notice, PeerHealth};
use common::client::ask;
use common::serve_rest;
use common::twin::{NOW, peer};
use peer::Live;
use std::time::Duration;
use types::{Because, Depth, PinOptions};

fn cid(number: u32) -> types::Cid {
    dag::Block::new(dag::codec::RAW, dag::HashFn::SHA2_256, number.to_be_bytes().to_vec().into()).unwrap().cid
}

#[tokio::test]
async fn the_page_reads_without_scripts() {
    let served = serve_rest().await;
    let named = PinOptions { name: "<holiday> & more".into(), ..PinOptions::default() };
    served.twin.write(cid(1), named, Depth::Recursive);
    served.twin.waiting.lock().unwrap().insert(cid(1), Because::NoProvider { missing: 4, first: None, asked: String::new() });
    served.twin.health.lock().unwrap()[2] = PeerHealth::Down;
    let answer = ask(served.address, "GET", "/").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    let page = answer.text();
    for part in [
        "carol is down: its copies are being replaced",
        "&lt;holiday&gt; &amp; more",
        "no reachable peer has the missing blocks (4 known)",
        "1 of 2",
        "this peer",
        &cid(1).to_string(),
        "<meter ",
        "Nothing yet: all is quiet.",
        "lang=\"en\"",
        "width=device-width",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[tokio::test]
async fn nothing_inline_and_nothing_from_elsewhere() {
    let served = serve_rest().await;
    served.twin.write(cid(1), PinOptions::default(), Depth::Recursive);
    let answer = ask(served.address, "GET", "/").await;
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let page = answer.text();
    for inline in [" style=", "<style", " onclick", " onload", "javascript:", "https://", "http://"] {
        assert!(!page.contains(inline), "{inline}");
    }
    for (target, media) in [("/pinfold/v1/page.js", "text/javascript; charset=utf-8"), ("/pinfold/v1/page.css", "text/css; charset=utf-8")]
    {
        assert!(page.contains(target));
        let asset = ask(served.address, "GET", target).await;
        assert_eq!((asset.status, asset.header("content-type"), asset.header("x-content-type-options")), (200, media, "nosniff"));
        assert!(!asset.text().contains("http"), "{target} asks nobody else");
    }
}

#[tokio::test]
async fn pins_are_found_and_paged() {
    let served = serve_rest().await;
    for number in 0..120 {
        let options = PinOptions { name: format!("pin-{number:03}"), ..PinOptions::default() };
        served.twin.write(cid(number), options, Depth::Recursive);
    }
    served.twin.waiting.lock().unwrap().insert(cid(7), Because::Queue { before: 1 });
    let shown = |page: &str| page.matches("class=\"cid\"").count();
    for (target, count, part) in [
        ("/", 50, "Page 1 of 3"),
        ("/?page=3", 20, "Page 3 of 3"),
        ("/?page=99", 0, ""),
        ("/?q=pin-01", 10, "Page 1 of 1"),
        ("/?q=PIN-119", 1, "pin-119"),
        ("/?show=unfinished", 1, "pin-007"),
        ("/?q=nothing", 0, "No pin matches."),
        ("/?page=x&q=%3Cscript%3E", 0, "value=\"&lt;script&gt;\""),
    ] {
        let page = ask(served.address, "GET", target).await.text();
        assert_eq!((shown(&page), page.contains(part)), (count, true), "{target}");
    }
}

#[tokio::test]
async fn notices_are_kept_for_late_readers() {
    let served = serve_rest().await;
    let notice = Notice::Repairing { cid: cid(1), lost: vec![peer(2)], gained: vec![peer(3)] };
    served.twin.live.send(Live::Notice(NOW, notice, "holiday moves from bob to carol".into())).unwrap();
    for _ in 0..100 {
        if ask(served.address, "GET", "/").await.text().contains("holiday moves from bob to carol") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the notice is shown");
}
