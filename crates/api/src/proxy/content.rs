//! Reading through the proxy.

use super::{Answer, KuboError, Proxy, stream, whole};
use crate::gateway;
use crate::message::Body;
use bytes::Bytes;
use ipfs::Source;
use serde_json::json;
use std::time::Duration;
use types::Cid;
use wire::rest::query::Query;

/// How long one block may take.
const BLOCK_LIMIT: Duration = Duration::from_secs(60);

impl Proxy {
    pub(super) async fn cat(&self, arguments: &[String], query: &Query) -> Answer {
        let cid = self.resolve_first(arguments).await?;
        let number = |name: &str| match query.get(name) {
            "" => Ok(None),
            text => text.parse::<u64>().map(Some).map_err(|_| KuboError::new(format!("parameter {name} invalid"))),
        };
        let from = number("offset")?.unwrap_or(0);
        let to = number("length")?.map_or(u64::MAX, |length| from.saturating_add(length));
        let body = gateway::open(self.cluster.node(), cid, from..to).await.map_err(KuboError::new)?;
        Ok(stream(body))
    }

    pub(super) async fn block_get(&self, arguments: &[String]) -> Answer {
        let cid = self.resolve_first(arguments).await?;
        Ok(stream(Body::whole(self.block(&cid).await?)))
    }

    pub(super) async fn block_stat(&self, arguments: &[String]) -> Answer {
        let cid = self.resolve_first(arguments).await?;
        let block = self.block(&cid).await?;
        Ok(whole(&json!({ "Key": cid.to_string(), "Size": block.len() })))
    }

    async fn block(&self, cid: &Cid) -> Result<Bytes, KuboError> {
        let node = self.cluster.node();
        match tokio::time::timeout(BLOCK_LIMIT, crate::path::block(&*node, cid, &Source::default())).await {
            Ok(got) => got.map_err(|error| KuboError::new(error.to_string())),
            Err(_) => Err(KuboError::new(format!("block {cid} was not found within {} s", BLOCK_LIMIT.as_secs()))),
        }
    }
}
