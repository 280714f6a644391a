//! Blocks and providers over HTTP: gateways and routers that are good, slow, gone, busy and lying.
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::{OnDisk, host, options};
use ipfs::conformance::sample::{branch, leaf, raw_of_size};
use ipfs::routing::{ContentRouting, HttpSource, NodeRouting};
use ipfs::{Block, BlockError, Blocks, NodeInfo, PinTask, Pins, Source};
use ipfs_embedded::{EmbeddedOptions, Found, HttpRouting, Routing, RoutingOptions, Strategy};
use net::Host;
use net::http::{HttpClient, HttpLimits, HttpOptions, Url};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use types::{ByteCount, Cid, Depth, Owner};

/// What a server does with a path.
#[derive(Clone)]
enum Does {
    Gives(HashMap<Cid, bytes::Bytes>),
    /// Blocks too, and an archive: these bytes of the answer to a request for one.
    Archives(HashMap<Cid, bytes::Bytes>, Vec<u8>),
    Answers(String),
    /// The same answer for the first requests, then blocks.
    First(usize, String, HashMap<Cid, bytes::Bytes>),
    /// Gives, after a while.
    Ponders(Duration, HashMap<Cid, bytes::Bytes>),
    Hangs,
    Floods,
}

/// A server on the loopback and the paths that it was asked for.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(does: Does) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, does.clone(), noted.clone()));
            }
        });
        Server { address, asked }
    }

    fn url(&self) -> Url {
        net::http::base(&format!("http://{}", self.address)).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn serve(mut stream: TcpStream, does: Does, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let count = {
            let mut asked = asked.lock();
            asked.push(path.clone());
            asked.len()
        };
        if let Does::Ponders(pause, _) = &does {
            tokio::time::sleep(*pause).await;
        }
        let answer = match &does {
            Does::Hangs => return std::future::pending().await,
            Does::Floods => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ipld.raw\r\n\r\n").await.ok();
                while stream.write_all(&[7; 64 << 10]).await.is_ok() {}
                return;
            }
            Does::Answers(answer) => answer.clone().into_bytes(),
            Does::First(first, answer, _) if count <= *first => answer.clone().into_bytes(),
            Does::Archives(_, answer) if path.ends_with("?format=car&dag-scope=all") => {
                assert!(head.contains("accept: application/vnd.ipld.car; version=1; order=dfs; dups=n\r\n"), "{head}");
                stream.write_all(answer).await.ok();
                // However it ends, the connection does.
                return;
            }
            Does::Gives(_) if path.contains("format=car") => b"HTTP/1.1 406 Not Acceptable\r\ncontent-length: 0\r\n\r\n".to_vec(),
            Does::Gives(blocks) | Does::Archives(blocks, _) | Does::First(_, _, blocks) | Does::Ponders(_, blocks) => {
                assert!(path.ends_with("?format=raw") && head.contains("accept: application/vnd.ipld.raw\r\n"), "{head}");
                let cid = path.trim_start_matches("/ipfs/").trim_end_matches("?format=raw").parse::<Cid>().unwrap();
                match blocks.get(&cid) {
                    Some(data) => [ok("application/vnd.ipld.raw", data.len()).as_bytes(), data].concat(),
                    None => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
                }
            }
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn ok(kind: &str, length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n")
}

fn status(status: &str) -> Does {
    Does::Answers(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))
}

fn gives(blocks: &[Block]) -> Does {
    Does::Gives(blocks.iter().map(|block| (block.cid, block.data.clone())).collect())
}

/// A router's answer.
fn says(kind: &str, body: &str) -> Does {
    Does::Answers(format!("{}{body}", ok(kind, body.len())))
}

/// A node that asks these servers.
struct Asker {
    disk: OnDisk,
    routing: Arc<Routing>,
}

impl Asker {
    async fn new(routers: &[&Server], gateways: &[&Server], found: Found) -> Asker {
        Asker::on(host().await, routers, gateways, found)
    }

    fn on(host: Host, routers: &[&Server], gateways: &[&Server], found: Found) -> Asker {
        let limits = HttpLimits { head: Duration::from_secs(3), stall: Duration::from_secs(3), ..HttpLimits::default() };
        let client = HttpClient::new(HttpOptions { limits, ..HttpOptions::default() }).unwrap();
        let urls = |servers: &[&Server]| servers.iter().map(|server| server.url()).collect();
        let http = Some(HttpRouting { client, routers: urls(routers), gateways: urls(gateways), found });
        let routing = Routing::start(&host, RoutingOptions { mode: None, bootstrap: Vec::new(), strategy: Strategy::None, http }).unwrap();
        let options = EmbeddedOptions { routing: Some(routing.clone()), ..options() };
        Asker { disk: OnDisk::with(ByteCount(1 << 40), Some(host), options), routing }
    }

    async fn get(&self, block: &Block) -> Result<bytes::Bytes, BlockError> {
        self.disk.node.get(&block.cid, &Source::default()).await
    }

    /// How the servers named in this order are.
    fn gateways(&self) -> Vec<HttpSource> {
        self.routing.over_http().gateways
    }

    async fn why(&self, block: &Block) -> String {
        self.get(block).await.unwrap_err().to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_only_a_gateway_has_is_pinned() {
    let leaves: Vec<Block> = (0..300).map(|seed| raw_of_size(seed, 20_000)).collect();
    let root = branch(&leaves.iter().collect::<Vec<_>>());
    let blocks = [leaves, vec![root.clone()]].concat();
    let gateway = Server::start(gives(&blocks)).await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    let task = PinTask { owner: Owner::User, cid: root.cid, depth: Depth::Recursive, source: Source::default() };
    let pinned = asker.disk.node.pin(task, Arc::new(tokio::sync::watch::Sender::default())).await.unwrap();
    assert_eq!(pinned.blocks, 301);
    for block in &blocks {
        assert_eq!(asker.disk.node.get(&block.cid, &Source::local()).await.unwrap(), block.data);
    }
    let row = &asker.gateways()[0];
    let expected = (302, 301, 1, 0, pinned.bytes.0);
    assert_eq!((row.asked, row.given, row.missed, row.failed, row.bytes), expected, "each block once, and once in vain for all");
}

/// A DAG of two levels, and the archive of it.
struct Archive {
    blocks: Vec<Block>,
    bytes: Vec<u8>,
}

impl Archive {
    fn new() -> Archive {
        let mut blocks = Vec::new();
        let mut tops = Vec::new();
        for top in 0..5 {
            let leaves: Vec<Block> = (0..150).map(|seed| raw_of_size(top * 1000 + seed, 10_000)).collect();
            let node = branch(&leaves.iter().collect::<Vec<_>>());
            blocks.extend([node.clone()].into_iter().chain(leaves));
            tops.push(node);
        }
        let root = branch(&tops.iter().collect::<Vec<_>>());
        blocks.insert(0, root.clone());
        let sections = blocks.iter().flat_map(dag::car::section).map(|part| part.to_vec());
        let bytes = std::iter::once(dag::car::header(&[root.cid])).chain(sections).collect::<Vec<_>>().concat();
        Archive { blocks, bytes }
    }

    /// A gateway that says that so many bytes come, and sends these.
    fn gateway(&self, bytes: &[u8]) -> Does {
        let blocks = self.blocks.iter().map(|block| (block.cid, block.data.clone())).collect();
        let head = ok("application/vnd.ipld.car; version=1; order=dfs; dups=n", self.bytes.len());
        Does::Archives(blocks, [head.as_bytes(), bytes].concat())
    }

    async fn pin(&self, asker: &Asker) {
        let task = PinTask { owner: Owner::User, cid: self.blocks[0].cid, depth: Depth::Recursive, source: Source::default() };
        let pinned = asker.disk.node.pin(task, Arc::new(tokio::sync::watch::Sender::default())).await.unwrap();
        assert_eq!(pinned.blocks, self.blocks.len() as u64);
        assert_eq!(pinned.bytes.0, self.blocks.iter().map(|block| block.data.len() as u64).sum::<u64>());
        for block in &self.blocks {
            assert_eq!(asker.disk.node.get(&block.cid, &Source::local()).await.unwrap(), block.data);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dag_comes_as_one_archive_from_a_gateway_that_gives_such() {
    let archive = Archive::new();
    let gateway = Server::start(archive.gateway(&archive.bytes)).await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    archive.pin(&asker).await;
    let row = &asker.gateways()[0];
    assert_eq!((row.asked, row.given, row.failed), (2, 2, 0), "the root, then all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_archive_does_not_bring_is_fetched_block_by_block() {
    let archive = Archive::new();
    // Within a block, and before the first one.
    for (end, asked_least, asked_most) in [(archive.bytes.len() / 2, 300, 420), (20, 750, 760)] {
        let gateway = Server::start(archive.gateway(&archive.bytes[..end])).await;
        let asker = Asker::new(&[], &[&gateway], Found::No).await;
        archive.pin(&asker).await;
        let asked = gateway.asked();
        assert!((asked_least..=asked_most).contains(&asked), "cut at {end}: {asked} requests");
        assert_eq!(asker.gateways()[0].failed, 1);
    }
    // In an order that is not the walk's, with the leaves first.
    let backwards = [archive.blocks[0].clone()].into_iter().chain(archive.blocks[1..].iter().rev().cloned());
    let sections = backwards.flat_map(|block| dag::car::section(&block)).map(|part| part.to_vec());
    let bytes = std::iter::once(dag::car::header(&[])).chain(sections).collect::<Vec<_>>().concat();
    let head = ok("application/vnd.ipld.car", bytes.len());
    let blocks = archive.blocks.iter().map(|block| (block.cid, block.data.clone())).collect();
    let gateway = Server::start(Does::Archives(blocks, [head.as_bytes(), &bytes].concat())).await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    archive.pin(&asker).await;
    assert_eq!(asker.gateways()[0].failed, 0, "no fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_lies_puts_its_gateway_aside_and_another_one_gives_the_rest() {
    let archive = Archive::new();
    let mut forged = archive.bytes.clone();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    let (bad, good) = (Server::start(archive.gateway(&forged)).await, Server::start(gives(&archive.blocks)).await);
    let asker = Asker::new(&[], &[&bad, &good], Found::No).await;
    archive.pin(&asker).await;
    let row = &asker.gateways()[0];
    assert!(row.failed == 1 && row.why.as_ref().is_some_and(|why| why.contains("sent something else")), "{row:?}");
    assert!(row.again_in.is_some_and(|again| again > Duration::from_secs(300)), "{row:?}");
    assert_eq!(bad.asked(), 2, "it is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_for_a_block_it_is_asked_for_once() {
    let block = raw_of_size(1, 100_000);
    let gateway = Server::start(Does::Ponders(Duration::from_secs(2), HashMap::from([(block.cid, block.data.clone())]))).await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    let all = futures::future::join_all((0..50).map(|_| asker.get(&block))).await;
    assert!(all.iter().all(|got| got.as_ref().is_ok_and(|data| *data == block.data)));
    assert_eq!(gateway.asked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_lies_floods_or_shows_a_page_is_put_aside_and_the_next_one_gives() {
    let blocks: Vec<Block> = (0..5).map(|seed| raw_of_size(seed, 1000)).collect();
    let lies = says("application/vnd.ipld.raw", "something else");
    let page = says("text/html", "<html>log in first</html>");
    for (does, why, pause) in [
        (lies, "sent something else", 600),
        (Does::Floods, "an answer of more than 2097152 bytes", 600),
        (page, "answered with \"text/html\" instead of a block", 10),
        (status("505 Oh"), "505", 10),
        (status("401 No"), "401", 10),
        (Does::Answers("220 ftp ready\r\n".to_owned()), "the connection failed", 10),
    ] {
        let (bad, good) = (Server::start(does).await, Server::start(gives(&blocks)).await);
        let asker = Asker::new(&[], &[&bad, &good], Found::No).await;
        for block in &blocks {
            assert_eq!(asker.get(block).await.unwrap(), block.data, "{why}");
        }
        let is_grave = pause > 20;
        assert!(bad.asked() == 1 || !is_grave, "{why}: it is left alone");
        let row = &asker.gateways()[0];
        assert!(row.why.as_ref().is_some_and(|said| said.contains(why)), "{why}: {row:?}");
        let again = row.again_in.unwrap();
        assert!(again <= Duration::from_secs(pause) && (again > Duration::from_secs(pause) / 2 || !is_grave), "{why}: {again:?}");
        // Alone it is not believed either, and who wants the block learns why.
        let asker = Asker::new(&[], &[&bad], Found::No).await;
        if is_grave {
            let said = asker.why(&blocks[0]).await;
            assert!(said.contains(why) && said.contains(&format!("gateway http://{}", bad.address)) && said.contains("again in"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_hangs_gets_company_and_is_put_aside() {
    let block = raw_of_size(1, 1000);
    let (hanging, good) = (Server::start(Does::Hangs).await, Server::start(gives(std::slice::from_ref(&block))).await);
    let asker = Asker::new(&[], &[&hanging, &good], Found::No).await;
    assert_eq!(asker.get(&block).await.unwrap(), block.data);
    assert_eq!((hanging.asked(), good.asked()), (1, 1));
    let asker = Asker::new(&[], &[&hanging], Found::No).await;
    let blocks: Vec<Block> = (0..3).map(leaf).collect();
    for said in futures::future::join_all(blocks.iter().map(|block| asker.why(block))).await {
        assert!(said.contains("did not find it: no answer within 3 s"), "{said}");
    }
    let row = &asker.gateways()[0];
    assert!(row.failed == 3 && row.again_in.is_some(), "nothing came of three in a row: {row:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_busy_is_asked_again_when_it_says() {
    let block = raw_of_size(1, 1000);
    let busy = "HTTP/1.1 429 Too Many\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n".to_owned();
    let blocks = HashMap::from([(block.cid, block.data.clone())]);
    let gateway = Server::start(Does::First(1, busy, blocks)).await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    let begun = std::time::Instant::now();
    assert_eq!(asker.get(&block).await.unwrap(), block.data);
    assert!(begun.elapsed() >= Duration::from_secs(2), "not before it said");
    assert_eq!(gateway.asked(), 2);

    let later = "HTTP/1.1 429 Too Many\r\nretry-after: 300\r\ncontent-length: 0\r\n\r\n".to_owned();
    let gateway = Server::start(Does::Answers(later)).await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    let said = asker.why(&block).await;
    assert!(said.contains("429, again in "), "{said}");
    asker.why(&leaf(1)).await;
    assert_eq!(gateway.asked(), 1, "for no other block either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_gateway_has_is_said_and_not_asked_for_again_at_once() {
    let (one, two) = (Server::start(gives(&[])).await, Server::start(status("410 Gone")).await);
    let asker = Asker::new(&[], &[&one, &two], Found::No).await;
    let said = asker.why(&leaf(1)).await;
    for server in [&one, &two] {
        assert!(said.contains(&format!("gateway http://{} does not have it", server.address)), "{said}");
    }
    assert!(asker.why(&leaf(1)).await.contains("s ago"));
    assert_eq!((one.asked(), two.asked()), (1, 1));
    assert!(asker.gateways().iter().all(|row| row.again_in.is_none() && row.missed == 1), "having nothing is no fault");
    let source = Source { without_http: true, ..Source::default() };
    assert!(matches!(asker.disk.node.get(&leaf(2).cid, &source).await, Err(BlockError::NotFound { .. })));
    assert_eq!(one.asked(), 1, "not for who must not be sent there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_give_is_not_asked_for_over_http() {
    let blocks: Vec<Block> = (0..50).map(|seed| raw_of_size(seed, 50_000)).collect();
    let gateway = Server::start(gives(&blocks)).await;
    let (asker, holder) = (Asker::new(&[], &[&gateway], Found::No).await, OnDisk::networked().await);
    holder.node.put_verified(&Owner::User, blocks.clone()).await.unwrap();
    asker.disk.connect(&holder).await;
    let source = Source { holders: holder.node.id().into_iter().collect(), ..Source::default() };
    for block in &blocks {
        assert_eq!(asker.disk.node.get(&block.cid, &source).await.unwrap(), block.data);
    }
    assert_eq!(gateway.asked(), 0);
    // A holder that is connected and says nothing any more: the gateway gives before patience with the holder ends.
    let late = raw_of_size(99, 1000);
    let gateway = Server::start(gives(std::slice::from_ref(&late))).await;
    let silent = silent_node().await;
    let asker = Asker::new(&[], &[&gateway], Found::No).await;
    asker.disk.node.connect(&silent.addresses()).await;
    let source = Source { holders: vec![silent.id()], ..Source::default() };
    let begun = std::time::Instant::now();
    assert_eq!(asker.disk.node.get(&late.cid, &source).await.unwrap(), late.data);
    assert!(begun.elapsed() >= Duration::from_secs(2), "the holder is given a while first");
}

/// A node that takes bitswap's messages and never answers.
async fn silent_node() -> Host {
    let host = host().await;
    let mut incoming = host.accept(&["/ipfs/bitswap/1.2.0"]).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(stream) = incoming.next().await {
            kept.push(stream);
        }
    });
    host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_content_is_learnt_from_a_router_as_lines_or_as_a_list() {
    let holder = OnDisk::networked().await;
    let block = raw_of_size(1, 5000);
    holder.node.put_verified(&Owner::User, vec![block.clone()]).await.unwrap();
    let id = holder.node.id().unwrap();
    let addresses = serde_json_list(&holder.node.addresses().await);
    let row = format!(r#"{{"Schema":"peer","ID":"{id}","Addrs":[{addresses}],"Protocols":["transport-bitswap"],"New":1}}"#);
    let unknown = r#"{"Schema":"hologram","ID":"x"}"#;
    for (kind, body) in [
        ("application/x-ndjson", format!("{unknown}\n\n{row}\n")),
        ("application/x-ndjson; charset=utf-8", row.clone()),
        ("application/json", format!(r#"{{"Providers":[{unknown},{row}]}}"#)),
    ] {
        let router = Server::start(says(kind, &body)).await;
        let asker = Asker::new(&[&router], &[], Found::No).await;
        assert_eq!(asker.get(&block).await.unwrap(), block.data, "{kind}");
        assert_eq!(router.asked.lock()[..], [format!("/routing/v1/providers/{}", block.cid)]);
        let row = &asker.routing.over_http().routers[0];
        assert_eq!((row.given, row.failed, &row.again_in), (1, 0, &None), "{row:?}");
    }
    let router = Server::start(says("application/json", &format!(r#"{{"Peers":[{row}]}}"#))).await;
    let asker = Asker::new(&[&router], &[], Found::No).await;
    let found = asker.routing.find_peer(&id).await.unwrap().unwrap();
    assert!(found.node == id && found.addresses.iter().all(|address| !address.contains("/p2p/")) && !found.addresses.is_empty());
    assert!(router.asked.lock()[0].starts_with("/routing/v1/peers/k51"));
    let key = [b"/ipns/", id.as_bytes()].concat();
    let router = Server::start(says("application/vnd.ipfs.ipns-record", "a record")).await;
    let asker = Asker::new(&[&router], &[], Found::No).await;
    assert_eq!(asker.routing.values()[0].get_value(&key).await, Ok(Some(b"a record".to_vec())));
    assert!(router.asked.lock()[0].starts_with("/routing/v1/ipns/k51"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_fails_is_put_aside_and_said_so() {
    let junk = "x".repeat(200_000);
    for (does, why) in [
        (status("505 Oh"), "505"),
        (says("application/x-ndjson", &junk), "a record of more than"),
        (says("application/json", "[]"), "no list of Providers"),
        (Does::Floods, "more than"),
    ] {
        let router = Server::start(does).await;
        let asker = Asker::new(&[&router], &[], Found::No).await;
        let said = asker.why(&leaf(1)).await;
        assert!(said.contains(&format!("router http://{}", router.address)) && said.contains("again in") && said.contains(why), "{said}");
        asker.why(&leaf(2)).await;
        assert_eq!(router.asked(), 1);
    }
    let router = Server::start(status("404 Not Found")).await;
    let asker = Asker::new(&[&router], &[], Found::No).await;
    asker.why(&leaf(1)).await;
    asker.why(&leaf(2)).await;
    assert_eq!(router.asked(), 2, "knowing nobody is no fault");
    let refused = asker.routing.provide(&[leaf(1).cid]).await.unwrap_err().to_string();
    assert!(refused.contains("only asked"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_routers_name_are_asked_only_where_the_user_allows_it() {
    let block = raw_of_size(1, 5000);
    let gateway = Server::start(gives(std::slice::from_ref(&block))).await;
    let id = types::PeerId::from_ed25519(&[7; 32]);
    let address = format!("/ip4/127.0.0.1/tcp/{}/http", gateway.address.port());
    let row = format!(r#"{{"Schema":"peer","ID":"{id}","Addrs":["{address}"],"Protocols":["transport-ipfs-gateway-http"]}}"#);
    let router = Server::start(says("application/x-ndjson", &row)).await;
    for found in [Found::No, Found::Public] {
        let asker = Asker::new(&[&router], &[], found).await;
        asker.why(&block).await;
        assert_eq!(gateway.asked(), 0, "{found:?}");
    }
    let asker = Asker::new(&[&router], &[], Found::Anywhere).await;
    assert_eq!(asker.get(&block).await.unwrap(), block.data);
    let row = &asker.gateways()[0];
    assert!(row.is_found && row.given == 1, "{row:?}");
}

fn serde_json_list(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(",")
}
