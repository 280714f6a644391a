//! In which form content is wanted: for people, a block, or a CAR.

use super::answer::Trouble;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use types::Cid;
use wire::rest::query::Query;

/// The media type of a name's record.
pub(super) const RECORD: &str = "application/vnd.ipfs.ipns-record";

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Files and listings.
    Content,
    /// The block at the end of the path.
    Raw,
    /// Blocks that prove what the path leads to.
    Car(CarForm),
    /// The signed record of a name.
    Record,
}

/// Which blocks a CAR has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CarForm {
    pub scope: Scope,
    /// Of the bytes of a file: from, and to (inclusive); negative counts from the end.
    pub bytes: Option<(i64, Option<i64>)>,
}

/// How much below the end of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// A file with its bytes, or a directory with its own shards.
    Entity,
    /// The one block.
    Block,
}

impl Form {
    /// Reads `?format=`, which wins, and `Accept`.
    pub fn of(query: &Query, headers: &HeaderMap) -> Result<Form, Trouble> {
        let named = query.get("format");
        let accept = || headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let media = accept().map(|media| media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let wanted = match named {
            "" => media.into_iter().find(|media| media.starts_with("application/vnd.ipld.") || media == RECORD).unwrap_or_default(),
            named => named.to_owned(),
        };
        match wanted.as_str() {
            "" => Ok(Form::Content),
            "raw" | "application/vnd.ipld.raw" => Ok(Form::Raw),
            "car" | "application/vnd.ipld.car" => {
                check_version(query, accept())?;
                Ok(Form::Car(CarForm { scope: scope(query)?, bytes: entity_bytes(query)? }))
            }
            "ipns-record" | RECORD => Ok(Form::Record),
            other => {
                Err(Trouble::new(StatusCode::NOT_ACCEPTABLE, &format!("form {other:?} is not offered: only raw, car and ipns-record")))
            }
        }
    }

    /// The validator of the answer; the CID says it all.
    pub fn etag(&self, cid: &Cid) -> String {
        match self {
            Form::Content => format!("\"{cid}\""),
            Form::Raw => format!("\"{cid}.raw\""),
            Form::Record => format!("\"{cid}.ipns-record\""),
            Form::Car(CarForm { scope, bytes }) => {
                let bytes = bytes
                    .map_or_else(String::new, |(from, to)| format!(".{from}_{}", to.map_or_else(|| "*".to_owned(), |to| to.to_string())));
                // The order of blocks and doubles may differ between peers.
                format!("W/\"{cid}.car.{scope:?}{bytes}\"")
            }
        }
    }
}

fn check_version<'a>(query: &Query, accept: impl Iterator<Item = &'a str>) -> Result<(), Trouble> {
    let in_accept = accept
        .filter(|media| media.contains("vnd.ipld.car"))
        .flat_map(|media| media.split(';').skip(1))
        .find_map(|part| part.trim().strip_prefix("version="));
    let version = if query.get("car-version").is_empty() { in_accept.unwrap_or("1") } else { query.get("car-version") };
    if version == "1" {
        Ok(())
    } else {
        Err(Trouble::new(StatusCode::BAD_REQUEST, &format!("CAR version {version:?} is not offered: only 1")))
    }
}

fn scope(query: &Query) -> Result<Scope, Trouble> {
    match query.get("dag-scope") {
        // A range of bytes is of one file.
        "" if !query.get("entity-bytes").is_empty() => Ok(Scope::Entity),
        "" | "all" => Ok(Scope::All),
        "entity" => Ok(Scope::Entity),
        "block" => Ok(Scope::Block),
        other => Err(Trouble::new(StatusCode::BAD_REQUEST, &format!("dag-scope {other:?} is none of all, entity, block"))),
    }
}

fn entity_bytes(query: &Query) -> Result<Option<(i64, Option<i64>)>, Trouble> {
    let text = query.get("entity-bytes");
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || Trouble::new(StatusCode::BAD_REQUEST, &format!("entity-bytes {text:?} is no range like 0:1023 or 0:*"));
    let (from, to) = text.split_once(':').ok_or_else(bad)?;
    let from = from.parse().map_err(|_| bad())?;
    let to = if to == "*" { None } else { Some(to.parse().map_err(|_| bad())?) };
    Ok(Some((from, to)))
}

/// Whether only what is on this peer may be used.
pub(super) fn is_only_if_cached(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case("only-if-cached"))
}

/// Whether a Pinfold peer asks, for its own node: it must not be sent on to servers that may ask it in turn.
pub(super) fn is_from_a_peer(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.split_whitespace().nth(1) == Some("pinfold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_asks_is_known_by_its_via() {
        let is_peer = |lines: &[&str]| is_from_a_peer(&lines.iter().map(|line| (header::VIA, line.parse().expect("a value"))).collect());
        assert!(is_peer(&["1.1 pinfold"]) && is_peer(&["1.1 proxy, 1.1 pinfold"]) && is_peer(&["1.1 proxy", "1.1 pinfold (x)"]));
        assert!(!is_peer(&[]) && !is_peer(&["1.1 pinfolder"]) && !is_peer(&["pinfold"]));
    }

    fn check(query: &str, accept: &str, expected: Result<Form, u16>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
        }
        let form = Form::of(&Query::parse(query), &headers).map_err(|trouble| trouble.status.as_u16());
        assert_eq!(form, expected, "{query} {accept}");
    }

    #[test]
    fn forms_are_asked_for_by_query_or_header() {
        let car = |scope| Ok(Form::Car(CarForm { scope, bytes: None }));
        check("", "", Ok(Form::Content));
        check("", "text/html,application/xhtml+xml,*/*;q=0.8", Ok(Form::Content));
        check("format=raw", "", Ok(Form::Raw));
        check("", "application/vnd.ipld.raw", Ok(Form::Raw));
        check("format=car", "application/vnd.ipld.raw", car(Scope::All));
        check("dag-scope=entity", "application/vnd.ipld.car; version=1; order=dfs", car(Scope::Entity));
        check("format=car&dag-scope=block", "", car(Scope::Block));
        check("format=car&entity-bytes=5:-1", "", Ok(Form::Car(CarForm { scope: Scope::Entity, bytes: Some((5, Some(-1))) })));
        check("format=car&entity-bytes=5", "", Err(400));
        check("format=car&dag-scope=some", "", Err(400));
        check("format=car&car-version=2", "", Err(400));
        check("", "application/vnd.ipld.car; version=2", Err(400));
        check("format=ipns-record", "", Ok(Form::Record));
        check("", "application/vnd.ipfs.ipns-record", Ok(Form::Record));
        check("format=tar", "", Err(406));
    }
}
