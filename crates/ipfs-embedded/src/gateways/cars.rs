//! A whole DAG of a gateway in one answer (`format=car`), where it gives such: a long line then costs its round trip once, and not once for each
//! level of the DAG.

use super::{Asking, Fault, Gateway, Gateways, below, fault_of};
use crate::shared::on_disk;
use dag::car::{CarItem, CarReader};
use ipfs::Block;
use net::http::{Ask, Body, HttpError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::Cid;

const KIND: &str = "application/vnd.ipld.car";
const ACCEPT: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
/// No DAG has more; how long it may take goes by the bytes that may come, and is bounded by whoever reads.
const BYTES_MOST: usize = 1 << 40;
/// Bytes of blocks that are handed on together.
const TOGETHER: usize = 1 << 20;

/// A stream of blocks. Dropped at any time, it ends.
pub(crate) struct Car {
    asking: Option<Asking>,
    body: Body,
    reader: CarReader,
    bytes: u64,
}

impl Gateways {
    /// All blocks from `root` down, of a gateway that has given blocks before.
    pub(crate) async fn car(&self, root: &Cid) -> Option<Car> {
        let may_give = |gateway: &Arc<Gateway>| !gateway.gives_no_cars.load(Ordering::Relaxed) && gateway.standing.lock().given() > 0;
        for gateway in self.in_order(&Default::default()).into_iter().filter(may_give) {
            if let Some(car) = self.car_of(&gateway, root).await {
                return Some(car);
            }
        }
        None
    }

    async fn car_of(&self, gateway: &Arc<Gateway>, root: &Cid) -> Option<Car> {
        let asking = Asking::begin(gateway).ok()?;
        let url = below(&gateway.url, &format!("ipfs/{root}"), Some("format=car&dag-scope=all"));
        let ask = Ask { url: &url, accept: ACCEPT, most: BYTES_MOST, may_be_private: gateway.may_be_private };
        match self.client.get(ask).await {
            Ok(answer) if answer.status == 200 && answer.kind == KIND => {
                Some(Car { asking: Some(asking), body: answer.body, reader: CarReader::unverified(), bytes: 0 })
            }
            // It gave a block of it, so the form is what it does not give.
            Ok(answer) => {
                gateway.gives_no_cars.store(true, Ordering::Relaxed);
                let what = format!("gives no whole DAGs ({}, {:?})", answer.status, answer.kind);
                tracing::debug!(url = gateway.shown, what, "blocks are asked for one by one");
                asking.no(what);
                None
            }
            Err(error) => {
                asking.fault(fault_of(&error), error.to_string());
                None
            }
        }
    }
}

impl Car {
    /// The next blocks, proven by their hashes; none at the end, whether all came or not.
    pub(crate) async fn next(&mut self) -> Option<Vec<Block>> {
        let read = self.read().await;
        let blocks = match read {
            Ok(blocks) => blocks,
            Err((fault, why)) => {
                if let Some(asking) = self.asking.take() {
                    asking.fault(fault, why);
                }
                return None;
            }
        };
        if blocks.is_empty() {
            if let Some(asking) = self.asking.take() {
                asking.gave_bytes(self.bytes);
            }
            return None;
        }
        self.bytes += blocks.iter().map(|block| block.data.len() as u64).sum::<u64>();
        Some(blocks)
    }

    /// A stream that breaks is what a gateway does that lacks a block: as if it were slow, it may still give the others.
    async fn read(&mut self) -> Result<Vec<Block>, (Fault, String)> {
        let broken = |error: dag::car::CarError| (Fault::Slow, format!("a broken archive: {error}"));
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while bytes < TOGETHER {
            match self.reader.next_item().map_err(broken)? {
                Some(CarItem::Header(_)) => {}
                Some(CarItem::Block(block)) => {
                    bytes += block.data.len() + 128;
                    blocks.push(block);
                }
                None => match self.body.chunk().await {
                    Ok(Some(data)) => self.reader.push(&data),
                    // What came before it broke is good.
                    Ok(None) | Err(_) if !blocks.is_empty() => break,
                    Ok(None) => {
                        self.reader.finish().map_err(broken)?;
                        break;
                    }
                    Err(error @ HttpError::TooLong { .. }) => return Err((Fault::Lied, error.to_string())),
                    Err(error) => return Err((Fault::Slow, error.to_string())),
                },
            }
        }
        let proven = on_disk(move || match blocks.iter().find_map(|block| dag::verify(&block.cid, &block.data).err()) {
            Some(error) => Err((Fault::Lied, format!("sent something else: {error}"))),
            None => Ok(blocks),
        });
        proven.await
    }
}
