//! What people and daemons write, and small forms of names and addresses.

use crate::values::{some_cids, some_peers};
use crate::vectors;
use fuzz::same;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use types::{PeerId, Pin, UnixMillis};
use wire::cids::{cid_from_bytes, cid_from_text};
use wire::gotime::GoTime;
use wire::rest::query::{self, Query};
use wire::{identity, kubo, multiaddr, rest};

fn bytes_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn identity(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(key) = identity::decode_identity(text) else { return false };
    let again = identity::decode_identity(&identity::encode_identity(&key)).expect("own identity");
    assert!(again.0 == key.0 && again.peer_id() == key.peer_id());
    true
}

pub fn identities() -> Vec<Vec<u8>> {
    let key = identity::decode_private_key(&vectors::identity()).expect("a recorded key");
    vec![identity::encode_identity(&key).into_bytes()]
}

pub fn private_key(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(key) = identity::decode_private_key(text) else { return false };
    let again = identity::decode_private_key(&identity::encode_private_key(&key)).expect("own key");
    assert!(again.0 == key.0);
    true
}

pub fn private_keys() -> Vec<Vec<u8>> {
    vec![vectors::identity().into_bytes()]
}

pub fn cluster_secret(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    identity::decode_secret(text).is_ok_and(|secret| !identity::swarm_key_text(&secret).is_empty())
}

pub fn cluster_secrets() -> Vec<Vec<u8>> {
    bytes_of(&[&"4f72".repeat(16), &format!("{}\n", "Ab".repeat(32))])
}

pub fn peer_id(input: &[u8]) -> bool {
    let by_bytes = PeerId::from_bytes(input);
    let by_text = std::str::from_utf8(input).ok().and_then(|text| text.parse::<PeerId>().ok());
    for peer in by_bytes.iter().chain(&by_text) {
        same(PeerId::from_bytes(peer.as_bytes()).ok(), Some(*peer));
        same(peer.to_string().parse::<PeerId>().ok(), Some(*peer));
    }
    by_bytes.is_ok() || by_text.is_some()
}

pub fn peer_ids() -> Vec<Vec<u8>> {
    let texts = some_peers().into_iter().map(|peer| peer.to_string().into_bytes());
    let bytes = some_peers().into_iter().map(|peer| peer.as_bytes().to_vec());
    let others = bytes_of(&["QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW"]);
    texts.chain(bytes).chain(others).collect()
}

pub fn cid(input: &[u8]) -> bool {
    let by_bytes = cid_from_bytes(input);
    let by_text = std::str::from_utf8(input).ok().and_then(|text| cid_from_text(text).ok());
    for cid in by_bytes.iter().chain(&by_text) {
        same(cid_from_bytes(&cid.to_bytes()), Some(*cid));
        same(cid_from_text(&cid.to_string()), Ok(*cid));
    }
    by_bytes.is_some() || by_text.is_some()
}

pub fn cids() -> Vec<Vec<u8>> {
    let texts = some_cids().into_iter().map(|cid| cid.to_string().into_bytes());
    let bytes = some_cids().into_iter().map(|cid| cid.to_bytes());
    let bases = bytes_of(&[
        "zdj7WbTaiJT1fgatdet9Ei9iDB5hdCxkbVyhyh8YTUnXMiwYi",
        "f01551220ab5283e2ba688f56dc708fe24d96fc8c504148c3816adad09be778cb2f6b49e6",
        "uAVUSIKtSg-K6aI9W3HCP4k2W_IxQQUjDgWra0JvneMsva0nm",
    ]);
    texts.chain(bytes).chain(bases).collect()
}

pub fn multiaddr_bytes(input: &[u8]) -> bool {
    let peer = multiaddr::peer_of(input);
    let Ok(text) = multiaddr::to_text(input) else { return false };
    assert!(peer.is_none() || text.contains("/p2p/"));
    let Ok(again) = multiaddr::from_text(&text) else { panic!("{text:?} does not read") };
    // As in Go, slashes at the end of a text count for nothing, also where they are the end of a path.
    same(multiaddr::to_text(&again).expect("own bytes").trim_end_matches('/'), text.trim_end_matches('/'));
    true
}

pub fn multiaddrs_as_bytes() -> Vec<Vec<u8>> {
    multiaddrs().iter().map(|text| multiaddr::from_text(std::str::from_utf8(text).expect("text")).expect("an address")).collect()
}

pub fn multiaddr_text(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(bytes) = multiaddr::from_text(text) else { return false };
    let Ok(written) = multiaddr::to_text(&bytes) else { panic!("{text:?} makes bytes that do not read") };
    same(multiaddr::from_text(&written), Ok(bytes));
    true
}

pub fn multiaddrs() -> Vec<Vec<u8>> {
    let peer = format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", some_peers()[0]);
    let onion = format!("/onion3/{}:1234", "a".repeat(56));
    bytes_of(&[
        &peer,
        &onion,
        "/ip6/::1/udp/4001/quic-v1/webtransport/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ",
        "/dns4/example.org/tcp/443/tls/sni/example.org/ws",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
        "/unix/a/b.sock",
        "/memory/77/p2p-circuit",
    ])
}

pub fn go_time(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(time) = GoTime::parse(text) else { return false };
    let _ = (time.to_millis(), time.to_millis_if(), time.is_zero());
    same(GoTime::parse(&time.to_string()), Ok(time));
    true
}

pub fn go_times() -> Vec<Vec<u8>> {
    bytes_of(&["0001-01-01T00:00:00Z", "2026-11-23T16:39:26.123456789Z", "2024-02-29T23:59:59+05:30", "9999-12-31T23:59:59-23:59"])
}

pub fn rest_query(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let query = Query::parse(text);
    let now = UnixMillis(1_700_000_000_000);
    let options = query::pin_options(&query, now);
    let params = query::add_params(&query, now);
    let _ = query::parse_duration(query.get("expire-in"));
    let _ = query::parse_duration(text);
    let _ = (wire::status::Filter::parse(query.get("filter")), query::kinds_filter(query.get("filter")), query.list("cids"));
    (options.is_ok() || params.is_ok()) && !query.pairs().is_empty()
}

pub fn rest_queries() -> Vec<Vec<u8>> {
    bytes_of(&[
        "replication-min=2&replication-max=3&name=a%20b+c&mode=direct&shard-size=100&user-allocations=a,b&expire-in=72h3m0.5s",
        "meta-key=value&meta-%C3%A4=x&origins=/ip4/1.2.3.4/tcp/4001&pin-update=QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW",
        "chunker=rabin-16-32-64&layout=trickle&raw-leaves=true&cid-version=1&hash=blake2b-256&wrap-with-directory=1&stream-channels=false",
        "format=car&shard=true&no-pin=t&local=TRUE&progress=F&hidden=0&nocopy=false&expire-at=2026-11-23T16:39:26Z",
        "filter=pinned,pin_error,queued&local=true&cids=a,b,c",
    ])
}

pub fn rest_json(input: &[u8]) -> bool {
    let pin = serde_json::from_slice::<rest::Pin>(input);
    if let Ok(Ok(pin)) = pin.as_ref().map(Pin::try_from) {
        // A pin that was read is one that is written the same way ever after.
        let written = rest::Pin::from(&pin);
        same(Pin::try_from(&written).ok(), Some(pin));
    }
    let forms = [
        form::<rest::Pin>(input),
        form::<rest::PinInfo>(input),
        form::<rest::GlobalPinInfo>(input),
        form::<rest::Id>(input),
        form::<rest::ConnectGraph>(input),
        form::<rest::AddedOutput>(input),
        form::<rest::Metric>(input),
        form::<rest::Alert>(input),
        form::<rest::RepoGc>(input),
        form::<rest::GlobalRepoGc>(input),
        form::<rest::Error>(input),
        form::<rest::Version>(input),
    ];
    forms.contains(&true)
}

fn form<T: serde::Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(input) else { return false };
    let written = rest::to_go_json(&value);
    same(serde_json::from_str::<T>(&written).ok(), Some(value));
    true
}

pub fn kubo_answers(input: &[u8]) -> bool {
    let _ = kubo::error_text(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = (kubo::missing_block(text), kubo::is_not_pinned(text));
    }
    let read = [
        kubo::pin_line(input).is_ok(),
        kubo::listed_pin(input).is_ok(),
        kubo::put_block(input).is_ok(),
        kubo::block_size(input).is_ok(),
        kubo::node_id(input).is_ok(),
        kubo::repo_stat(input).is_ok(),
        kubo::dag_stat(input).is_ok(),
        kubo::files_root(input).is_ok(),
        kubo::routing_value(input).is_ok(),
    ];
    read.contains(&true)
}

pub fn delegated(input: &[u8]) -> bool {
    use wire::delegated;
    let read = [delegated::record_of_line(input).is_some(), delegated::providers(input).is_ok(), delegated::peers(input).is_ok()];
    read.contains(&true)
}

pub fn answers_of_routers() -> Vec<Vec<u8>> {
    bytes_of(&[
        r#"{"Schema":"peer","ID":"12D3KooWLexZxErBeBfq8UYTECWJnUK8i1FQB8mxGGjQ8qzU1YbG","Addrs":["/ip4/1.2.3.4/tcp/1"],"Protocols":["transport-bitswap"]}"#,
        r#"{"Schema":"peer","ID":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW","Addrs":["/dns/a.org/tcp/443/tls/http"],"Protocols":["transport-ipfs-gateway-http"]}"#,
        r#"{"Providers":[{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"12D3KooWLexZxErBeBfq8UYTECWJnUK8i1FQB8mxGGjQ8qzU1YbG"},{"Schema":"new"}]}"#,
        r#"{"Peers":null}"#,
    ])
}

pub fn answers_of_kubo() -> Vec<Vec<u8>> {
    bytes_of(&[
        r#"{"Progress":12}"#,
        r#"{"ID":"","Type":5,"Responses":null,"Extra":"aGVsbG8="}"#,
        r#"{"Pins":["QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW"]}"#,
        r#"{"Cid":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW","Type":"recursive","Name":"n"}"#,
        r#"{"Key":"bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y","Size":7}"#,
        r#"{"ID":"12D3KooWLexZxErBeBfq8UYTECWJnUK8i1FQB8mxGGjQ8qzU1YbG","Addresses":["/ip4/1.2.3.4/tcp/1"],"AgentVersion":"kubo/0.39.0"}"#,
        r#"{"RepoSize":1000,"StorageMax":10000000000,"NumObjects":12,"Version":"fs-repo@16"}"#,
        r#"{"UniqueBlocks":7,"TotalSize":99,"SharedSize":0,"Ratio":1,"DagStats":[{"Cid":"x","Size":99,"NumBlocks":7}]}"#,
        r#"{"Hash":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW","Size":0,"CumulativeSize":4,"Blocks":0,"Type":"directory"}"#,
        r#"{"Message":"block was not found locally (offline): ipld: could not find QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW","Code":0,"Type":"error"}"#,
    ])
}

pub fn chunker(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| text.parse::<dag::chunk::Chunker>().is_ok())
}

pub fn chunkers() -> Vec<Vec<u8>> {
    bytes_of(&["size-262144", "rabin-16-32-64", "rabin-1000", "buzhash", "default", "rabin"])
}

pub fn mfs_path(input: &[u8]) -> bool {
    dag::mfs::Path::new(input).is_ok_and(|path| path.names().iter().all(|name| !name.contains(&b'/') && !name.is_empty()))
}

pub fn mfs_paths() -> Vec<Vec<u8>> {
    bytes_of(&["/", "/a/b/c", "/a//./../b/", "/ä/\u{0}x"])
}
