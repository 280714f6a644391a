//! Query parameters of pin and add requests, with Go's defaults and error texts.

mod add;
mod duration;

pub use add::{AddFormat, AddLayout, AddParams, add_params};
pub use duration::{BadDuration, parse_duration};

use crate::cids::{BadCidText, cid_from_text};
use crate::gotime::{BadTime, GoTime};
use crate::multiaddr::{self, BadMultiaddr};
use std::collections::BTreeMap;
use types::{BadReplicas, Depth, PeerId, PinKind, PinOptions, Replicas, UnixMillis};

/// The most parameters read; what comes after is ignored. The server's limit on headers comes first.
const PARAMETERS_MAX: usize = 4096;

/// The parameters of a URL, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// Why parameters are refused. The texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a number, or not a truth value.
    #[error("parameter {0} invalid")]
    Parameter(&'static str),
    /// `shard-size` is not a number.
    #[error("parameter shard_size is invalid")]
    ShardSize,
    /// `expire-at` is no time.
    #[error("expire-at cannot be parsed: {0}")]
    ExpireAt(#[source] BadTime),
    /// `expire-in` is no duration.
    #[error("expire-in cannot be parsed: {0}")]
    ExpireIn(#[source] BadDuration),
    /// `expire-in` is less than a second.
    #[error("expire-in duration too short")]
    ExpireInShort,
    /// `pin-update` is no CID.
    #[error("error decoding update option parameter: {0}")]
    Update(#[source] BadCidText),
    /// One of `origins` is no multiaddr.
    #[error("error decoding multiaddress: {0}")]
    Origin(#[source] BadMultiaddr),
    /// One of `origins` names no peer.
    #[error("multiaddress does not contain peer ID: {0}")]
    OriginWithoutPeer(String),
    /// The factors make no sense.
    #[error("{0}")]
    Replicas(#[from] BadReplicas),
    /// `layout` is unknown.
    #[error("layout parameter is invalid")]
    Layout,
    /// `format` is unknown.
    #[error("format parameter is invalid")]
    Format,
}

impl QueryError {
    /// The HTTP status Go answers with: it finds bad factors later than the rest.
    pub fn status(&self) -> u16 {
        if matches!(self, QueryError::Replicas(_)) { 500 } else { 400 }
    }
}

impl Query {
    /// Reads what stands after the `?`. Parts with a broken `%` or a `;` are left out, as in Go.
    pub fn parse(text: &str) -> Query {
        let parts = text.split('&').filter(|part| !part.is_empty() && !part.contains(';'));
        let pairs = parts.filter_map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name)?, decode(value)?))
        });
        Query { pairs: pairs.take(PARAMETERS_MAX).collect() }
    }

    /// The first value of a parameter; empty when it is missing, which means the same everywhere.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// All parameters in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The parts of a comma list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).split(',').filter(|part| !part.is_empty()).collect()
    }

    /// A truth value as Go reads it; missing is none.
    pub fn bool(&self, name: &'static str) -> Result<Option<bool>, QueryError> {
        match self.get(name) {
            "" => Ok(None),
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
            _ => Err(QueryError::Parameter(name)),
        }
    }

    /// A number as Go reads it; missing is none.
    pub fn int(&self, name: &'static str) -> Result<Option<i32>, QueryError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| QueryError::Parameter(name)),
        }
    }
}

/// Decodes `%` and `+`; none for a broken escape or what is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                (high << 4 | low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// What the pin options of a request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRequest {
    /// The options.
    pub options: PinOptions,
    /// From `mode`: everything, or the root block alone.
    pub depth: Depth,
}

/// Reads the pin options; `expire-in` counts from `now`. Whether the end lies in the past is checked later, as in Go.
pub fn pin_options(query: &Query, now: UnixMillis) -> Result<PinRequest, QueryError> {
    let both = query.get("replication");
    let (least, most) = if both.is_empty() {
        (query.int("replication-min")?, query.int("replication-max")?)
    } else {
        let number = both.parse().map_err(|_| QueryError::Parameter("replication-min"))?;
        (Some(number), Some(number))
    };
    let shard_size = match query.get("shard-size") {
        "" => 0,
        text => text.parse().map_err(|_| QueryError::ShardSize)?,
    };
    let update = match query.get("pin-update") {
        "" => None,
        text => Some(cid_from_text(text).map_err(QueryError::Update)?),
    };
    let options = PinOptions {
        replicas: Replicas::Unset,
        name: query.get("name").to_owned(),
        shard_size,
        prefer: query.list("user-allocations").iter().filter_map(|text| text.parse::<PeerId>().ok()).collect(),
        expires: expiry(query, now)?,
        metadata: metadata(query),
        update,
        origins: query.list("origins").into_iter().map(origin).collect::<Result<_, _>>()?,
    };
    let replicas = Replicas::from_factors(least.unwrap_or(0), most.unwrap_or(0))?;
    let depth = if query.get("mode") == "direct" { Depth::DIRECT } else { Depth::Recursive };
    Ok(PinRequest { options: PinOptions { replicas, ..options }, depth })
}

fn expiry(query: &Query, now: UnixMillis) -> Result<Option<UnixMillis>, QueryError> {
    match (query.get("expire-at"), query.get("expire-in")) {
        ("", "") => Ok(None),
        ("", text) => {
            const SECOND: i64 = 1_000_000_000;
            let nanos = parse_duration(text).map_err(QueryError::ExpireIn)?;
            if nanos < SECOND {
                return Err(QueryError::ExpireInShort);
            }
            Ok(Some(UnixMillis(now.0.saturating_add(nanos as u64 / 1_000_000))))
        }
        (text, _) => {
            let time = GoTime::parse(text).map_err(QueryError::ExpireAt)?;
            // A moment before 1970 is long past, but it is an end: 0 would mean none.
            Ok(time.to_millis_if().map(|end| end.max(UnixMillis(1))))
        }
    }
}

fn metadata(query: &Query) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    for (name, value) in query.pairs() {
        if let Some(key) = name.strip_prefix("meta-").filter(|key| !key.is_empty()) {
            metadata.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    metadata
}

fn origin(text: &str) -> Result<Vec<u8>, QueryError> {
    let address = multiaddr::from_text(text).map_err(QueryError::Origin)?;
    match multiaddr::peer_of(&address) {
        Some(_) => Ok(address),
        None => Err(QueryError::OriginWithoutPeer(text.to_owned())),
    }
}

/// Reads the `filter` of allocations: a comma list of kinds. Empty is all kinds; unknown words are skipped; none when no word is known
/// (Go answers `invalid filter value`).
pub fn kinds_filter(text: &str) -> Option<Vec<PinKind>> {
    const ALL: [PinKind; 4] = [PinKind::Data, PinKind::Meta, PinKind::ClusterDag, PinKind::Shard];
    let mut kinds = Vec::new();
    for word in text.split(',').map(str::trim) {
        match super::kind_of_text(word) {
            _ if word == "all" || text.is_empty() => return Some(ALL.to_vec()),
            PinKind::Bad => {}
            kind => kinds.push(kind),
        }
    }
    (!kinds.is_empty()).then_some(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn options(query: &str) -> Result<PinOptions, String> {
        pin_options(&Query::parse(query), NOW).map(|request| request.options).map_err(|error| error.to_string())
    }

    #[test]
    fn what_clients_always_send_means_nothing_said() {
        let all = "replication-min=0&replication-max=0&name=&mode=recursive&shard-size=0&user-allocations=";
        let request = pin_options(&Query::parse(all), NOW).expect("good parameters");
        assert_eq!(request, PinRequest { options: PinOptions::default(), depth: Depth::Recursive });
    }

    #[test]
    fn every_option_is_read() {
        let peer = "12D3KooWEmVZaeSx9U4c7FmrWRbXx6ZGGWhvSifwCSbY54u5mQkH";
        let read = options(&format!(
            "replication-min=2&replication-max=3&name=a%20b%2B+c&shard-size=1048576&user-allocations=notapeer,{peer}\
             &expire-in=1h&meta-k=v&meta-k=second&meta-=x&pin-update=QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW\
             &origins=/ip4/127.0.0.1/tcp/1/p2p/{peer}&unknown=1"
        ))
        .expect("good parameters");
        assert_eq!(read.replicas.factors(), (2, 3));
        assert_eq!(read.name, "a b+ c");
        assert_eq!(read.shard_size, 1_048_576);
        assert_eq!(read.prefer, [peer.parse().expect("a peer id")]);
        assert_eq!(read.expires, Some(UnixMillis(NOW.0 + 3_600_000)));
        assert_eq!(read.metadata, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        assert!(read.update.is_some());
        assert_eq!(read.origins.len(), 1);
    }

    #[test]
    fn refusals_speak_as_go_does() {
        for (query, error) in [
            ("replication-min=x", "parameter replication-min invalid"),
            ("replication-max=1.5", "parameter replication-max invalid"),
            ("replication=x", "parameter replication-min invalid"),
            ("replication-min=3&replication-max=2", "cluster.replication_factor_min is larger than max"),
            ("replication-min=-1&replication-max=2", "cluster.replication_factor_min and max must be -1 when one of them is"),
            ("shard-size=-1", "parameter shard_size is invalid"),
            ("expire-in=500ms", "expire-in duration too short"),
            ("expire-in=soon", "expire-in cannot be parsed: time: invalid duration \"soon\""),
            ("expire-at=soon", "expire-at cannot be parsed: parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\""),
            ("pin-update=x", "error decoding update option parameter: invalid cid: cid too short"),
            ("origins=/nothing", "error decoding multiaddress: failed to parse multiaddr \"/nothing\": unknown protocol nothing"),
            ("origins=/ip4/1.2.3.4", "multiaddress does not contain peer ID: /ip4/1.2.3.4"),
        ] {
            assert_eq!(options(query), Err(error.to_owned()), "{query}");
        }
        assert_eq!(QueryError::Replicas(BadReplicas::LeastAboveMost).status(), 500);
        assert_eq!(QueryError::ShardSize.status(), 400);
    }

    #[test]
    fn both_factors_at_once_win() {
        assert_eq!(options("replication=-1&replication-min=2&replication-max=3").expect("good").replicas, Replicas::Everywhere);
    }

    #[test]
    fn a_moment_wins_over_a_span() {
        let read = options("expire-at=2030-01-02T03:04:05Z&expire-in=nonsense").expect("good");
        assert_eq!(read.expires, Some(UnixMillis(1_893_553_445_000)));
        assert_eq!(options("expire-at=0001-01-01T00:00:00Z").expect("good").expires, None);
        assert_eq!(options("expire-at=1960-01-01T00:00:00Z").expect("good").expires, Some(UnixMillis(1)));
    }

    #[test]
    fn broken_parts_of_a_query_are_left_out() {
        let query = Query::parse("a=1&b=%zz&c=%f&d=x;y&&e&f=%C3%A9&a=2&g=%ff");
        let names: Vec<&str> = query.pairs().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "e", "f", "a"]);
        assert_eq!((query.get("a"), query.get("f"), query.get("none")), ("1", "é", ""));
    }

    #[test]
    fn kinds_are_filtered_as_in_go() {
        assert_eq!(kinds_filter("").map(|kinds| kinds.len()), Some(4));
        assert_eq!(kinds_filter("pin,nonsense"), Some(vec![PinKind::Data]));
        assert_eq!(kinds_filter("all").map(|kinds| kinds.len()), Some(4));
        assert_eq!(kinds_filter("nonsense"), None);
    }
}
