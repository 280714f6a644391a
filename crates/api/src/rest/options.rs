//! Options of pins and adds, out of a query string.

use super::Failure;
use crate::query::{Query, go_duration};
use types::{Depth, PeerId, PinOptions, Replicas, UnixMillis};

/// What an add is asked to do, beside the options of its pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddOptions {
    pub pin: PinOptions,
    pub is_local: bool,
    pub wraps: bool,
    pub is_trickle: bool,
    pub chunker: String,
    pub raw_leaves: bool,
    pub cid_version: u32,
    pub hash: String,
    pub has_progress: bool,
    pub is_streamed: bool,
    pub is_car: bool,
    pub pins: bool,
    /// Answer only when so many holders have confirmed their copies.
    pub wait: u32,
}

/// The options of a pin and how deep it is; everything is checked before anything runs.
pub(super) fn pin(query: &Query<'_>, wall: UnixMillis) -> Result<(PinOptions, Depth), Failure> {
    let mut options = PinOptions { name: query.get("name").to_owned(), ..PinOptions::default() };
    let depth = if query.get("mode") == "direct" { Depth::DIRECT } else { Depth::Recursive };
    let both = query.get("replication");
    let factor = |name: &str| -> Result<i32, Failure> {
        if !both.is_empty() {
            return both.parse().map_err(|_| Failure::bad(format!("parameter {name} invalid")));
        }
        query.number(name, 0).map_err(Failure::bad)
    };
    let (least, most) = (factor("replication-min")?, factor("replication-max")?);
    options.shard_size = query.number("shard-size", 0).map_err(|_| Failure::bad("parameter shard_size is invalid"))?;
    options.prefer = query.list("user-allocations").filter_map(|id| id.trim().parse::<PeerId>().ok()).collect();
    options.expires = expiry(query, wall)?;
    for (name, value) in query.pairs() {
        if let Some(key) = name.strip_prefix("meta-")
            && !key.is_empty()
        {
            options.metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    if !query.get("pin-update").is_empty() {
        let from = wire::cids::cid_from_text(query.get("pin-update"));
        options.update = Some(from.map_err(|error| Failure::bad(format!("error decoding update option parameter: {error}")))?);
    }
    for text in query.list("origins") {
        options.origins.push(origin(text)?);
    }
    // Go checks what follows behind the door, with other codes.
    options.replicas = Replicas::from_factors(least, most).map_err(|error| Failure::internal(error.to_string()))?;
    if options.expires.is_some_and(|end| end <= wall) {
        return Err(Failure::internal("pin.ExpireAt set before current time"));
    }
    Ok((options, depth))
}

fn expiry(query: &Query<'_>, wall: UnixMillis) -> Result<Option<UnixMillis>, Failure> {
    let at = query.get("expire-at");
    if !at.is_empty() {
        let at = wire::gotime::GoTime::parse(at).map_err(|error| Failure::bad(format!("expire-at cannot be parsed: {error}")))?;
        return Ok(if at.is_zero() { None } else { Some(UnixMillis(at.to_millis().0.max(1))) });
    }
    let after = query.get("expire-in");
    if after.is_empty() {
        return Ok(None);
    }
    let span = go_duration(after).ok_or_else(|| Failure::bad(format!("expire-in cannot be parsed: time: invalid duration {after:?}")))?;
    if span.as_secs() < 1 {
        return Err(Failure::bad("expire-in duration too short"));
    }
    Ok(Some(UnixMillis(wall.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))))
}

fn origin(text: &str) -> Result<Vec<u8>, Failure> {
    let address = wire::multiaddr::to_bytes(text).map_err(|error| Failure::bad(format!("error decoding multiaddress: {error}")))?;
    if text.contains("/p2p/") || text.contains("/ipfs/") { Ok(address) } else { Err(Failure::bad(format!("multiaddress does not contain peer ID: {text}"))) }
}

/// The options of an add.
pub(super) fn add(query: &Query<'_>, wall: UnixMillis) -> Result<AddOptions, Failure> {
    let (mut pin, _) = pin(query, wall)?;
    pin.update = None;
    let flag = |name: &str, default: bool| query.flag(name, default).map_err(Failure::bad);
    let is_trickle = match query.get("layout") {
        "" | "balanced" => false,
        "trickle" => true,
        _ => return Err(Failure::bad("layout parameter is invalid")),
    };
    let is_car = match query.get("format") {
        "" | "unixfs" => false,
        "car" => true,
        _ => return Err(Failure::bad("format parameter is invalid")),
    };
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let cid_version = query.number("cid-version", 0u32).map_err(Failure::bad)?;
    for ignored in ["recursive", "hidden"] {
        flag(ignored, false)?;
    }
    if flag("shard", false)? {
        return Err(Failure::bad("sharding is not supported by this peer: add without shard=true"));
    }
    if flag("nocopy", false)? {
        return Err(Failure::bad("nocopy is not supported by this peer: blocks are always copied into its store"));
    }
    Ok(AddOptions {
        pin,
        is_local: flag("local", false)?,
        wraps: flag("wrap-with-directory", false)?,
        is_trickle,
        chunker: or(query.get("chunker"), "size-262144"),
        raw_leaves: flag("raw-leaves", cid_version > 0)?,
        cid_version,
        hash: or(query.get("hash"), "sha2-256").to_ascii_lowercase(),
        has_progress: flag("progress", false)?,
        is_streamed: flag("stream-channels", true)?,
        is_car,
        pins: !flag("no-pin", false)?,
        wait: query.number("wait", 0u32).map_err(Failure::bad)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn check(query: &str, expected: Result<&str, (u16, &str)>) {
        let got = pin(&Query::parse(Some(query)), NOW)
            .map(|(options, depth)| format!("{:?} {depth:?} {:?} {:?} {:?}", options.replicas.factors(), options.name, options.expires.map(|end| end.0), options.metadata))
            .map_err(|failure| (failure.status.as_u16(), failure.message));
        assert_eq!(got, expected.map(str::to_owned).map_err(|(code, text)| (code, text.to_owned())), "{query}");
    }

    #[test]
    fn pin_options_as_go_reads_them() {
        check(
            "replication-min=0&replication-max=0&name=&mode=recursive&shard-size=0&user-allocations=",
            Ok("(0, 0) Recursive \"\" None {}"),
        );
        check("replication-min=1&replication-max=3&name=a+b&mode=direct", Ok("(1, 3) Levels(0) \"a b\" None {}"));
        check("replication=2&replication-min=1", Ok("(2, 2) Recursive \"\" None {}"));
        check("mode=strange&meta-a=1&meta-=2", Ok("(0, 0) Recursive \"\" None {\"a\": \"1\"}"));
        check("expire-in=1m", Ok("(0, 0) Recursive \"\" Some(1700000060000) {}"));
        check("expire-at=2033-05-18T03:33:20Z&expire-in=1m", Ok("(0, 0) Recursive \"\" Some(2000000000000) {}"));
        check("user-allocations=notapeer", Ok("(0, 0) Recursive \"\" None {}"));
        check("replication-min=x", Err((400, "parameter replication-min invalid")));
        check("shard-size=-1", Err((400, "parameter shard_size is invalid")));
        check("expire-in=100ms", Err((400, "expire-in duration too short")));
        check("expire-at=2001-01-01T00:00:00Z", Err((500, "pin.ExpireAt set before current time")));
        check("replication-min=3&replication-max=2", Err((500, "cluster.replication_factor_min is larger than max")));
        check("replication-min=-1&replication-max=2", Err((500, "cluster.replication_factor_min and max must be -1 when one of them is")));
        check("replication=-2", Err((500, "cluster.replication_factor_min is wrong")));
    }

    #[test]
    fn add_options_as_go_reads_them() {
        let read = |query: &str| add(&Query::parse(Some(query)), NOW);
        let plain = read("").unwrap();
        assert!(plain.is_streamed && plain.pins && !plain.raw_leaves && !plain.wraps);
        assert_eq!((plain.chunker.as_str(), plain.hash.as_str()), ("size-262144", "sha2-256"));
        assert!(read("cid-version=1").unwrap().raw_leaves);
        assert!(!read("cid-version=1&raw-leaves=false").unwrap().raw_leaves);
        for (query, text) in [
            ("layout=x", "layout parameter is invalid"),
            ("format=zip", "format parameter is invalid"),
            ("progress=yes", "parameter progress invalid"),
            ("cid-version=x", "parameter cid-version invalid"),
        ] {
            assert_eq!(read(query), Err(Failure::bad(text)), "{query}");
        }
    }
}
