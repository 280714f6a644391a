//! Reasons for waiting, as arrays of a number and its values.

use super::{Decoded, PeerDecodeError, put_text, read_text, read_u32, rest_of_tuple};
use crate::msgpack::{MsgpackError, Reader, Writer};
use types::{Because, ByteCount, Cid, PeerId, UnixMillis};

const QUEUE: u64 = 0;
const NO_ROOM: u64 = 1;
const NO_PROVIDER: u64 = 2;
const NODE_DOWN: u64 = 3;
const THROTTLED: u64 = 4;
const HAND_OVER: u64 = 5;
const MASS_REMOVAL: u64 = 6;
const CATCHING_UP: u64 = 7;
const GRACE: u64 = 8;
const NOT_ENOUGH_PEERS: u64 = 9;
const PARTITION: u64 = 10;
const UNCONFIRMED: u64 = 11;
const FAILED: u64 = 12;

pub(super) fn put(out: &mut Writer, because: &Because) {
    match because {
        Because::Queue { before } => numbers(out, QUEUE, &[*before]),
        Because::NoRoom { needed, free } => numbers(out, NO_ROOM, &[needed.0, free.0]),
        Because::NoProvider { missing, first: None, asked } if asked.is_empty() => numbers(out, NO_PROVIDER, &[*missing]),
        Because::NoProvider { missing, first, asked } => {
            out.array(4);
            out.uint(NO_PROVIDER);
            out.uint(*missing);
            out.raw(&first.map(|first| first.to_bytes()).unwrap_or_default());
            put_text(out, asked);
        }
        Because::NodeDown { error } => text(out, NODE_DOWN, error),
        Because::Throttled => numbers(out, THROTTLED, &[]),
        Because::HandOver { confirmed, needed } => numbers(out, HAND_OVER, &[(*confirmed).into(), (*needed).into()]),
        Because::MassRemoval { removals, held } => numbers(out, MASS_REMOVAL, &[*removals, *held]),
        Because::CatchingUp => numbers(out, CATCHING_UP, &[]),
        Because::Grace { peer, until } => {
            out.array(3);
            out.uint(GRACE);
            out.raw(peer.as_bytes());
            out.uint(until.0);
        }
        Because::NotEnoughPeers { needed, candidates } => numbers(out, NOT_ENOUGH_PEERS, &[(*needed).into(), (*candidates).into()]),
        Because::Partition { seen, known } => numbers(out, PARTITION, &[(*seen).into(), (*known).into()]),
        Because::Unconfirmed => numbers(out, UNCONFIRMED, &[]),
        Because::Failed { error } => text(out, FAILED, error),
    }
}

fn numbers(out: &mut Writer, code: u64, values: &[u64]) {
    out.array(1 + values.len());
    out.uint(code);
    values.iter().for_each(|value| out.uint(*value));
}

fn text(out: &mut Writer, code: u64, error: &str) {
    out.array(2);
    out.uint(code);
    put_text(out, error);
}

pub(super) fn read(reader: &mut Reader<'_>) -> Decoded<Because> {
    let count = reader.array()?.unwrap_or(0);
    let fields = count.checked_sub(1).ok_or(PeerDecodeError::Fields(count))?;
    let code = reader.uint()?;
    let least = match code {
        QUEUE | NO_PROVIDER | NODE_DOWN | FAILED => 1,
        NO_ROOM | HAND_OVER | MASS_REMOVAL | GRACE | NOT_ENOUGH_PEERS | PARTITION => 2,
        _ => 0,
    };
    // Nothing more is known where one block is not named and nobody was asked.
    let is_told = code == NO_PROVIDER && fields > 2;
    rest_of_tuple(reader, fields, least + 2 * usize::from(is_told), |reader| read_values(code, is_told, reader))
}

fn read_values(code: u64, is_told: bool, reader: &mut Reader<'_>) -> Decoded<Because> {
    Ok(match code {
        QUEUE => Because::Queue { before: reader.uint()? },
        NO_ROOM => Because::NoRoom { needed: ByteCount(reader.uint()?), free: ByteCount(reader.uint()?) },
        NO_PROVIDER => {
            let missing = reader.uint()?;
            let (mut first, mut asked) = (None, String::new());
            if is_told {
                let bytes = reader.bytes()?;
                if !bytes.is_empty() {
                    first = Some(Cid::try_from(bytes).map_err(|_| MsgpackError::Invalid("cid"))?);
                }
                asked = read_text(reader)?;
            }
            Because::NoProvider { missing, first, asked }
        }
        NODE_DOWN => Because::NodeDown { error: read_text(reader)? },
        THROTTLED => Because::Throttled,
        HAND_OVER => Because::HandOver { confirmed: read_u32(reader)?, needed: read_u32(reader)? },
        MASS_REMOVAL => Because::MassRemoval { removals: reader.uint()?, held: reader.uint()? },
        CATCHING_UP => Because::CatchingUp,
        GRACE => {
            let peer = PeerId::from_bytes(reader.bytes()?).map_err(|_| MsgpackError::Invalid("peer id"))?;
            Because::Grace { peer, until: UnixMillis(reader.uint()?) }
        }
        NOT_ENOUGH_PEERS => Because::NotEnoughPeers { needed: read_u32(reader)?, candidates: read_u32(reader)? },
        PARTITION => Because::Partition { seen: read_u32(reader)?, known: read_u32(reader)? },
        UNCONFIRMED => Because::Unconfirmed,
        FAILED => Because::Failed { error: read_text(reader)? },
        other => Because::Failed { error: format!("a reason of a newer version (number {other})") },
    })
}
