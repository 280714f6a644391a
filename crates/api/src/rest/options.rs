//! Options of pins and adds: read by `wire`, with what Go checks behind the door and what is not offered here.

use super::Failure;
use hyper::StatusCode;
use types::{Depth, PinOptions, UnixMillis};
use wire::rest::query::{AddParams, Query, QueryError, add_params, pin_options};

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        Failure { status: StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST), message: error.to_string() }
    }
}

/// The options of a pin and how deep it is; everything is checked before anything runs.
pub(super) fn pin(query: &Query, wall: UnixMillis) -> Result<(PinOptions, Depth), Failure> {
    let request = pin_options(query, wall)?;
    check_end(&request.options, wall)?;
    Ok((request.options, request.depth))
}

fn check_end(options: &PinOptions, wall: UnixMillis) -> Result<(), Failure> {
    let is_over = options.expires.is_some_and(|end| end <= wall);
    if is_over { Err(Failure::internal("pin.ExpireAt set before current time")) } else { Ok(()) }
}

/// What an add is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddOptions {
    pub params: AddParams,
    /// Answer only when so many holders have confirmed their copies.
    pub wait: u32,
}

/// The options of an add.
pub(super) fn add(query: &Query, wall: UnixMillis) -> Result<AddOptions, Failure> {
    let params = add_params(query, wall)?;
    check_end(&params.options, wall)?;
    if params.no_copy {
        return Err(Failure::bad("nocopy is not supported by this peer: blocks are always copied into its store"));
    }
    let wait = query.int("wait")?.unwrap_or(0);
    let wait = u32::try_from(wait).map_err(|_| Failure::bad("parameter wait invalid"))?;
    Ok(AddOptions { params, wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    #[test]
    fn bad_options_have_the_codes_of_go() {
        for (query, code, text) in [
            ("replication-min=x", 400, "parameter replication-min invalid"),
            ("shard-size=-1", 400, "parameter shard_size is invalid"),
            ("expire-in=100ms", 400, "expire-in duration too short"),
            ("expire-at=2001-01-01T00:00:00Z", 500, "pin.ExpireAt set before current time"),
            ("replication-min=3&replication-max=2", 500, "cluster.replication_factor_min is larger than max"),
        ] {
            let failure = pin(&Query::parse(query), NOW).unwrap_err();
            assert_eq!((failure.status.as_u16(), failure.message.as_str()), (code, text), "{query}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert!(add(&Query::parse("wait=2"), NOW).is_ok_and(|options| options.wait == 2));
        assert!(add(&Query::parse("shard=true&shard-size=1000"), NOW).is_ok_and(|options| options.params.options.shard_size == 1000));
        for query in ["nocopy=true", "wait=-1", "layout=x", "expire-at=2001-01-01T00:00:00Z"] {
            assert!(add(&Query::parse(query), NOW).is_err(), "{query}");
        }
    }
}
