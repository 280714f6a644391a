//! Every decoder that another crate can reach, fed with damaged bytes. How to run it and what to do with a finding: `fuzz`'s own page.
//!
//! Each line of [`targets`] is a test. The seeds are values that are encoded here and recorded bytes of Go; the kept corpus lies in
//! `compat/fuzz/corpus`. Decoders that only their crate sees have their targets there: segments in `store`, lanes in `net`, history in `consensus`.

mod content;
mod names;
mod own;
mod shared;
mod text;
mod values;
mod vectors;

use fuzz::{Plan, Target};

/// Inputs for each target where the environment does not ask for time.
const COUNT: u64 = 100_000;

type Seeds = fn() -> Vec<Vec<u8>>;

macro_rules! targets {
    ($($name:ident: $decode:path, $seeds:path, $count:expr;)*) => {
        const TARGETS: &[(Target, Seeds)] = &[$((Target { name: stringify!($name), decode: $decode }, $seeds)),*];

        $(#[test]
        fn $name() {
            let target = Target { name: stringify!($name), decode: $decode };
            fuzz::check(target, $seeds(), Plan::of_environment($count, TARGETS.len()));
        })*
    };
}

targets! {
    delta: shared::delta, shared::deltas, COUNT;
    crdt_node: shared::crdt_node, shared::crdt_nodes, COUNT;
    crdt_block: shared::crdt_block, shared::crdt_nodes, COUNT;
    heads: shared::heads, shared::lists_of_heads, COUNT;
    pin: shared::pin, shared::pins, COUNT;
    pin_key: shared::pin_key, shared::pin_keys, COUNT;
    raft_snapshot: shared::raft_snapshot, shared::raft_snapshots, COUNT;
    export_line: shared::export_line, shared::export_lines, COUNT;
    metric: shared::metric, vectors::gossip, COUNT;
    ping: shared::ping, shared::pings, COUNT;
    gossip_message: shared::gossip_message, vectors::gossip, COUNT;
    mdns: shared::mdns, shared::mdns_packets, COUNT;
    kad: shared::kad, shared::kad_messages, COUNT;
    bitswap: shared::bitswap, shared::bitswap_messages, COUNT;
    rpc_values: shared::rpc_values, vectors::rpc_values, COUNT / 2;
    rpc_frames: shared::rpc_frames, vectors::rpc_frames, COUNT;
    peer_message: own::peer_message, own::peer_messages, COUNT;
    record: own::record, own::records, COUNT;
    exchange: own::exchange, own::exchanges, COUNT;
    ipns_record: names::ipns_record, names::ipns_records, COUNT;
    ipns_name: names::ipns_name, names::ipns_names, COUNT;
    key_pem: names::key_pem, names::key_pems, COUNT;
    flatfs_file: names::flatfs_file, names::flatfs_files, COUNT;
    invite: own::invite, own::invites, COUNT;
    join_request: own::join_request, own::join_requests, COUNT;
    join_answer: own::join_answer, own::join_answers, COUNT;
    address_book: own::address_book, own::address_books, COUNT;
    identity: text::identity, text::identities, COUNT;
    private_key: text::private_key, text::private_keys, COUNT;
    cluster_secret: text::cluster_secret, text::cluster_secrets, COUNT;
    peer_id: text::peer_id, text::peer_ids, COUNT;
    cid: text::cid, text::cids, COUNT;
    multiaddr_bytes: text::multiaddr_bytes, text::multiaddrs_as_bytes, COUNT;
    multiaddr_text: text::multiaddr_text, text::multiaddrs, COUNT;
    go_time: text::go_time, text::go_times, COUNT;
    rest_query: text::rest_query, text::rest_queries, COUNT;
    rest_json: text::rest_json, vectors::rest_json, COUNT / 2;
    delegated: text::delegated, text::answers_of_routers, COUNT;
    kubo_answers: text::kubo_answers, text::answers_of_kubo, COUNT;
    chunker: text::chunker, text::chunkers, COUNT;
    mfs_path: text::mfs_path, text::mfs_paths, COUNT;
    dag_pb: content::dag_pb, content::nodes, COUNT;
    unixfs: content::unixfs, content::messages_of_unixfs, COUNT;
    dag_cbor: content::dag_cbor, content::cbor_blocks, COUNT;
    dag_json: content::dag_json, content::json_blocks, COUNT;
    walk: content::walk, content::nodes, COUNT / 2;
    read_file: content::read_file, content::nodes, COUNT / 2;
    read_directory: content::read_directory, content::nodes, COUNT / 2;
    resolve_path: content::resolve_path, content::blocks_of_all_codecs, COUNT / 2;
    write_archives: content::write_archives, content::nodes, COUNT / 4;
    edit: content::edit, content::nodes, COUNT / 10;
    car_stream: content::car_stream, content::cars, COUNT / 4;
    car_head: content::car_head, content::cars, COUNT;
    car_index: content::car_index, content::car_indexes, COUNT;
    car_completeness: content::car_completeness, content::cars, COUNT / 4;
}

/// Writes seeds, and inputs that a long run found understood, to the corpus: run it after a format has changed.
#[test]
#[ignore = "writes into the sources"]
fn the_corpus_is_written() {
    const LONGEST: usize = 1500;
    const OF_EACH: usize = 12;
    for (target, seeds) in TARGETS {
        let seeds = seeds();
        let report =
            fuzz::run(*target, seeds.clone(), Plan::of_environment(COUNT, TARGETS.len())).unwrap_or_else(|failure| panic!("{failure}"));
        let step = (report.learned.len() / OF_EACH).max(1);
        let learned = report.learned.iter().step_by(step);
        for input in seeds.iter().take(OF_EACH).chain(learned.take(OF_EACH)).filter(|input| input.len() <= LONGEST) {
            fuzz::keep(target.name, input).expect("writes");
        }
    }
}
