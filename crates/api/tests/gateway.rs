//! The gateway over real sockets, against a node in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use bytes::Bytes;
use common::client::{Answer, Client, FILE, add, ask, ask_with};
use common::{Served, serve_gateway, serve_rest};
use dag::car::{CarItem, CarReader};
use dag::import::{DirectoryOptions, FileOptions, FileRoot, TreeAssembler, import_bytes};
use dag::unixfs::Stat;
use dag::{Block, HashFn, codec};
use ipfs::memory::MemoryNode;
use ipfs::{Blocks, Source};
use std::collections::BTreeSet;
use types::{Cid, Owner};

/// Small chunks, so that short files have inner nodes.
fn options() -> FileOptions {
    FileOptions { chunker: "size-1000".parse().unwrap(), ..FileOptions::v1() }
}

async fn put(node: &MemoryNode, blocks: Vec<Block>) {
    node.put(&Owner::User, blocks).await.unwrap();
}

async fn put_file(node: &MemoryNode, content: &[u8]) -> FileRoot {
    let mut blocks = Vec::new();
    let root = import_bytes(Bytes::copy_from_slice(content), options(), &mut |block| blocks.push(block)).unwrap();
    put(node, blocks).await;
    root
}

/// A folder; with `sharding` bytes of names and CIDs it becomes a trie.
async fn put_folder(node: &MemoryNode, files: &[(&str, &[u8])], sharding: usize) -> Cid {
    let folder = DirectoryOptions { sharding_size: sharding, ..DirectoryOptions::from(&options()) };
    let mut tree = TreeAssembler::new(folder, true).unwrap();
    let mut blocks = Vec::new();
    for (path, content) in files {
        let root = import_bytes(Bytes::copy_from_slice(content), options(), &mut |block| blocks.push(block)).unwrap();
        tree.add(path.as_bytes(), &root).unwrap();
    }
    tree.add_directory(b"empty", Stat::default()).unwrap();
    let made = tree.finish(&mut |block| blocks.push(block)).unwrap();
    put(node, blocks).await;
    *made.roots.last().unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

/// The blocks of a CAR, verified, in order.
fn car(answer: &Answer) -> (Vec<Cid>, Vec<Block>) {
    let mut reader = CarReader::new();
    reader.push(&answer.body);
    let (mut roots, mut blocks) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            CarItem::Header(header) => roots = header.roots,
            CarItem::Block(block) => blocks.push(block),
        }
    }
    reader.finish().unwrap();
    (roots, blocks)
}

#[tokio::test]
async fn files_come_whole_and_in_parts() {
    let served = serve_gateway().await;
    let data = content(250_000);
    let cid = put_file(&served.twin.node, &data).await.cid;
    let target = format!("/ipfs/{cid}");
    let whole = ask(served.address, "GET", &target).await;
    assert_eq!((whole.status, whole.body == data, whole.header("content-length")), (200, true, "250000"));
    for (name, expected) in [
        ("etag", format!("\"{cid}\"")),
        ("cache-control", "public, max-age=29030400, immutable".to_owned()),
        ("x-ipfs-path", target.clone()),
        ("x-ipfs-roots", cid.to_string()),
        ("accept-ranges", "bytes".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
    ] {
        assert_eq!(whole.header(name), expected, "{name}");
    }
    for (range, status, expected) in [
        ("bytes=0-4", 206, Some(0..5)),
        ("bytes=999-1000", 206, Some(999..1001)),
        ("bytes=200000-", 206, Some(200_000..250_000)),
        ("bytes=-10", 206, Some(249_990..250_000)),
        ("bytes=0-249999", 206, Some(0..250_000)),
        ("bytes=0-999999", 206, Some(0..250_000)),
        ("bytes=0-1,5-6", 200, Some(0..250_000)),
        ("bytes=250000-", 416, None),
    ] {
        let answer = ask_with(served.address, "GET", &target, &[("Range", range)]).await;
        assert_eq!(answer.status, status, "{range}");
        match expected {
            Some(part) => {
                assert!(answer.body == data[part.clone()], "{range}");
                let told = if status == 206 { format!("bytes {}-{}/250000", part.start, part.end - 1) } else { String::new() };
                assert_eq!(answer.header("content-range"), told, "{range}");
            }
            None => assert_eq!(answer.header("content-range"), "bytes */250000"),
        }
    }
    let head = ask(served.address, "HEAD", &target).await;
    assert_eq!((head.status, head.header("content-length")), (200, "250000"));
    let part = ask_with(served.address, "HEAD", &target, &[("Range", "bytes=0-9")]).await;
    assert_eq!((part.status, part.header("content-length")), (206, "10"));
    let etag = format!("W/\"x\", \"{cid}\"");
    for tag in [etag.as_str(), "*"] {
        let known = ask_with(served.address, "GET", &target, &[("If-None-Match", tag)]).await;
        assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, format!("\"{cid}\"").as_str()));
    }
    let empty = put_file(&served.twin.node, b"").await.cid;
    let answer = ask(served.address, "GET", &format!("/ipfs/{empty}")).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, "0", 0));
}

#[tokio::test]
async fn names_tell_types_and_downloads() {
    let served = serve_gateway().await;
    let cid = put_file(&served.twin.node, b"<!doctype html><p>hi").await.cid;
    for (query, media, disposition) in [
        ("", "text/html; charset=utf-8", ""),
        ("?filename=a.txt", "text/plain; charset=utf-8", "inline; filename=\"a.txt\""),
        (
            "?filename=%E2%82%AC.bin&download=true",
            "text/html; charset=utf-8",
            "attachment; filename=\"_.bin\"; filename*=UTF-8''%E2%82%AC.bin",
        ),
    ] {
        let answer = ask(served.address, "GET", &format!("/ipfs/{cid}{query}")).await;
        assert_eq!((answer.header("content-type"), answer.header("content-disposition")), (media, disposition), "{query}");
    }
}

#[tokio::test]
async fn folders_are_listed_unless_they_have_an_index() {
    for sharding in [0, 1] {
        let served = serve_gateway().await;
        let cid = put_folder(
            &served.twin.node,
            &[("a b.txt", b"one"), ("<x>&.md", b"two"), ("sub/c", b"three"), ("site/index.html", b"<p>home")],
            sharding,
        )
        .await;
        let redirect = ask(served.address, "GET", &format!("/ipfs/{cid}/sub?x=1%202")).await;
        assert_eq!((redirect.status, redirect.header("location")), (301, format!("/ipfs/{cid}/sub/?x=1%202").as_str()));
        let listing = ask(served.address, "GET", &format!("/ipfs/{cid}/")).await;
        let page = listing.text();
        assert_eq!((listing.status, listing.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(listing.header("content-security-policy").starts_with("default-src 'none'"));
        for part in
            ["href=\"./a%20b.txt\">a b.txt</a>", "href=\"./%3Cx%3E%26.md\">&lt;x&gt;&amp;.md</a>", ">sub</a>", ">empty</a>", "</html>"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("\">..</a>"), "nothing above the root");
        assert!(ask(served.address, "GET", &format!("/ipfs/{cid}/sub/")).await.text().contains("\">..</a>"));
        assert_eq!(ask(served.address, "GET", "/listing.css").await.header("content-type"), "text/css; charset=utf-8");
        let home = ask(served.address, "GET", &format!("/ipfs/{cid}/site/")).await;
        assert_eq!((home.text().as_str(), home.header("content-type")), ("<p>home", "text/html; charset=utf-8"));
        assert_eq!(home.header("x-ipfs-roots").split(',').count(), 2);
        let file = ask(served.address, "GET", &format!("/ipfs/{cid}/a%20b.txt")).await;
        assert_eq!((file.text().as_str(), file.header("content-type")), ("one", "text/plain; charset=utf-8"));
        let etag = listing.header("etag").to_owned();
        assert_eq!(ask_with(served.address, "GET", &format!("/ipfs/{cid}/"), &[("If-None-Match", &etag)]).await.status, 304);
        let missing = ask(served.address, "GET", &format!("/ipfs/{cid}/sub/none")).await;
        assert_eq!(missing.status, 404);
        assert!(missing.text().starts_with("no link named \"none\" under "), "{}", missing.text());
    }
}

#[tokio::test]
async fn a_large_folder_is_streamed() {
    let served = serve_gateway().await;
    let names: Vec<String> = (0..2000).map(|number| format!("file-{number:05}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let cid = put_folder(&served.twin.node, &files, 1).await;
    let page = ask(served.address, "GET", &format!("/ipfs/{cid}/")).await.text();
    let shown: BTreeSet<&str> = page.split("href=\"./").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.iter().all(|name| shown.contains(name.as_str())));
    let file = ask(served.address, "GET", &format!("/ipfs/{cid}/file-01234")).await;
    assert_eq!(file.text(), "x");
}

#[tokio::test]
async fn symlinks_show_their_target() {
    let served = serve_gateway().await;
    let (block, root) = dag::import::symlink(b"../elsewhere", &options()).unwrap();
    put(&served.twin.node, vec![block]).await;
    let answer = ask(served.address, "GET", &format!("/ipfs/{}", root.cid)).await;
    assert_eq!((answer.text().as_str(), answer.header("content-type")), ("../elsewhere", "inode/symlink"));
}

#[tokio::test]
async fn blocks_come_raw() {
    let served = serve_gateway().await;
    let cid = put_file(&served.twin.node, &content(5000)).await.cid;
    let block = served.twin.node.get(&cid, &Source::local()).await.unwrap();
    for (query, accept) in [("?format=raw", "*/*"), ("", "application/vnd.ipld.raw")] {
        let answer = ask_with(served.address, "GET", &format!("/ipfs/{cid}{query}"), &[("Accept", accept)]).await;
        assert_eq!((answer.status, answer.body == block, answer.header("content-type")), (200, true, "application/vnd.ipld.raw"));
        assert_eq!(answer.header("content-disposition"), format!("attachment; filename=\"{cid}.bin\""));
        assert_eq!((answer.header("etag"), answer.header("x-content-type-options")), (format!("\"{cid}.raw\"").as_str(), "nosniff"));
    }
}

#[tokio::test]
async fn cars_prove_what_paths_lead_to() {
    let served = serve_gateway().await;
    let data = content(20_500);
    let folder = put_folder(&served.twin.node, &[("dir/file", &data), ("dir/twin", &data), ("other", b"o")], 0).await;
    let all = ask(served.address, "GET", &format!("/ipfs/{folder}?format=car")).await;
    assert_eq!(all.header("content-type"), "application/vnd.ipld.car; version=1; order=dfs; dups=n");
    let (roots, blocks) = car(&all);
    assert_eq!(roots, [folder]);
    let cids: BTreeSet<Cid> = blocks.iter().map(|block| block.cid).collect();
    assert_eq!((blocks[0].cid, blocks.len()), (folder, cids.len()), "root first, no block twice");
    let other = MemoryNode::new();
    put(&other, blocks).await;
    let served_again = serve_gateway().await;
    for cid in cids {
        let data = other.get(&cid, &Source::local()).await.unwrap();
        put(&served_again.twin.node, vec![Block { cid, data }]).await;
    }
    let again = ask(served_again.address, "GET", &format!("/ipfs/{folder}/dir/twin")).await;
    assert!(again.body == data, "the CAR holds everything");

    // 21 leaves and a root below two folders.
    for (query, blocks_expected) in [
        ("dag-scope=block", 3),
        ("dag-scope=entity", 3 + 21),
        ("dag-scope=all", 3 + 21),
        ("dag-scope=entity&entity-bytes=0:999", 3 + 1),
        ("entity-bytes=-1500:*", 3 + 2),
    ] {
        let answer = ask(served.address, "GET", &format!("/ipfs/{folder}/dir/file?format=car&{query}")).await;
        let (roots, blocks) = car(&answer);
        assert_eq!((roots.len(), blocks.len(), blocks[0].cid), (1, blocks_expected, folder), "{query}");
        assert_eq!(blocks[2].cid, roots[0], "{query}: the way, then the end of the path");
    }
    let (_, blocks) = car(&ask(served.address, "GET", &format!("/ipfs/{folder}/dir?format=car&dag-scope=entity")).await);
    assert_eq!(blocks.len(), 2, "a folder without what is in it");
}

#[tokio::test]
async fn a_car_goes_round_through_add() {
    let gateway = serve_gateway().await;
    let folder = put_folder(&gateway.twin.node, &[("a", &content(9000)), ("b", b"b")], 0).await;
    let answer = ask(gateway.address, "GET", &format!("/ipfs/{folder}?format=car")).await;
    let rest = serve_rest().await;
    let added = add(rest.address, "format=car", &[(FILE, "x.car", &answer.body)]).await;
    let (_, blocks) = car(&answer);
    let bytes: usize = blocks.iter().map(|block| block.data.len()).sum();
    let line = &added.lines()[0];
    assert_eq!(
        (line["name"].as_str(), line["cid"].as_str(), line["bytes"].as_u64()),
        (Some("x.car"), Some(folder.to_string().as_str()), Some(bytes as u64))
    );
    assert_eq!(added.trailer("x-stream-error"), None);
    assert!(rest.twin.pins.lock().unwrap().contains_key(&folder));
    assert_eq!(rest.twin.node.has(&blocks.iter().map(|block| block.cid).collect::<Vec<_>>()).await.unwrap(), vec![true; blocks.len()]);
}

#[tokio::test]
async fn cars_that_are_not_whole_are_not_pinned() {
    let rest = serve_rest().await;
    let mut blocks = Vec::new();
    let root = import_bytes(content(3000).into(), options(), &mut |block| blocks.push(block)).unwrap().cid;
    let write = |roots: &[Cid], blocks: &[Block]| {
        let mut car = dag::car::header(roots);
        for block in blocks {
            dag::car::section(block).iter().for_each(|piece| car.extend_from_slice(piece));
        }
        car
    };
    let missing = blocks[1].cid;
    let without: Vec<Block> = blocks.iter().filter(|block| block.cid != missing).cloned().collect();
    let mut damaged = blocks.clone();
    damaged[0].data = Bytes::from_static(b"something else");
    let whole = write(&[root], &blocks);
    for (body, reason) in [
        (
            write(&[root], &without),
            format!(
                "the CAR is not complete: block {missing} below its root is missing, so nothing was pinned; export it again with everything below its root, or add it with no-pin"
            ),
        ),
        (write(&[root, missing], &blocks), "only CAR files with a single root are supported".to_owned()),
        (write(&[root], &damaged), format!("verifying a block of the CAR: block content does not match {}", blocks[0].cid)),
        (whole[..whole.len() - 1].to_vec(), "reading CAR: CAR ends too early".to_owned()),
    ] {
        let answer = add(rest.address, "format=car", &[(FILE, "x.car", &body)]).await;
        assert_eq!(answer.trailer("x-stream-error"), Some(reason.as_str()));
    }
    assert!(rest.twin.pins.lock().unwrap().is_empty());
    let partial = add(rest.address, "format=car&no-pin=true", &[(FILE, "x.car", &write(&[root], &without))]).await;
    assert_eq!(partial.trailer("x-stream-error"), None, "without a pin a part is welcome");
    let children_first = add(rest.address, "format=car", &[(FILE, "x.car", &whole)]).await;
    assert_eq!(children_first.trailer("x-stream-error"), None);
    let mut parents_first = blocks.clone();
    parents_first.reverse();
    let parents_first = add(rest.address, "format=car", &[(FILE, "x.car", &write(&[root], &parents_first))]).await;
    assert_eq!((parents_first.trailer("x-stream-error"), parents_first.lines()[0]["size"].as_u64()), (None, Some(3000)));
}

#[tokio::test]
async fn only_what_is_cached_means_only_this_peer() {
    let served = serve_gateway().await;
    let cid = put_file(&served.twin.node, &content(3000)).await.cid;
    let target = format!("/ipfs/{cid}");
    let cached = [("Cache-Control", "only-if-cached")];
    let refused = ask_with(served.address, "GET", &target, &cached).await;
    assert_eq!((refused.status, refused.text()), (412, format!("block {cid} is not on this node\n")));
    assert_eq!(ask_with(served.address, "HEAD", &target, &cached).await.status, 412);
    put_file(&served.twin.own, &content(3000)).await;
    assert_eq!(ask_with(served.address, "HEAD", &target, &cached).await.status, 200);
    assert!(ask_with(served.address, "GET", &target, &cached).await.body == content(3000));
}

#[tokio::test]
async fn troubles_are_told_in_words() {
    let served = serve_gateway().await;
    let absent = Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from_static(b"absent")).unwrap().cid;
    let odd = Block::new(0x99, HashFn::SHA2_256, Bytes::from_static(b"odd")).unwrap();
    let cid = put_file(&served.twin.node, b"text").await.cid;
    put(&served.twin.node, vec![odd.clone()]).await;
    let (absent, odd) = (format!("/ipfs/{absent}"), format!("/ipfs/{}", odd.cid));
    let (below, tar) = (format!("/ipfs/{cid}/x"), format!("/ipfs/{cid}?format=tar"));
    for (method, target, status) in [
        ("GET", "/ipfs/nonsense", 400),
        ("GET", "/ipfs/", 400),
        ("GET", "/elsewhere", 404),
        ("GET", "/ipns/example.org", 404),
        ("GET", "/ipns/nonsense", 400),
        ("GET", "/ipns/", 400),
        ("GET", absent.as_str(), 504),
        ("GET", below.as_str(), 404),
        ("GET", tar.as_str(), 406),
        ("GET", odd.as_str(), 406),
        ("POST", absent.as_str(), 405),
        ("GET", "/", 200),
    ] {
        let answer = ask(served.address, method, target).await;
        assert_eq!(answer.status, status, "{method} {target}");
        if status != 405 {
            assert!(answer.text().ends_with('\n') && answer.header("content-type").starts_with("text/plain"), "{target}");
        }
    }
}

#[tokio::test]
async fn a_file_with_a_hole_breaks_off_and_is_never_short() {
    let served = serve_gateway().await;
    let mut blocks = Vec::new();
    let root = import_bytes(content(50_000).into(), options(), &mut |block| blocks.push(block)).unwrap().cid;
    blocks.remove(30);
    put(&served.twin.node, blocks).await;
    let mut client = Client::connect(served.address).await;
    client.send(&common::client::request("GET", &format!("/ipfs/{root}"), &[], b"")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, "50000"));
    assert!(client.rest().await.len() <= 30_000, "at most up to the hole, then the connection ends");
    let part = ask_with(served.address, "GET", &format!("/ipfs/{root}"), &[("Range", "bytes=30000-")]).await;
    assert_eq!(part.status, 504, "a hole at the beginning is told");
}

#[tokio::test]
async fn a_path_pins_what_it_leads_to() {
    let Served { address, twin, .. } = serve_rest().await;
    let folder = put_folder(&twin.node, &[("dir/file", b"x")], 0).await;
    let file = put_file(&twin.node, b"x").await.cid;
    let pin = ask(address, "POST", &format!("/pins/ipfs/{folder}/dir/file?name=n")).await.json();
    assert_eq!(pin["cid"], file.to_string());
    let missing = ask(address, "POST", &format!("/pins/ipfs/{folder}/none")).await;
    assert_eq!((missing.status, missing.json()["message"].as_str().unwrap().starts_with("no link named \"none\"")), (500, true));
    assert_eq!(ask(address, "DELETE", &format!("/pins/ipfs/{folder}/dir/file")).await.status, 200);
    assert!(twin.pins.lock().unwrap().is_empty());
}
