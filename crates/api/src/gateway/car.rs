//! CARs: the blocks that prove what a path leads to, depth first, each once.

use super::answer::{self, Trouble};
use super::fetch::{AHEAD, Fetcher};
use super::form::{CarForm, Scope};
use super::{What, kind};
use crate::message::{Body, Broken, Response, with_type};
use bytes::Bytes;
use dag::export::{DirectoryReader, FileReader, FileStep, Found, ListStep, file_size};
use futures::stream::{self, Stream};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use types::Cid;

/// Blocks of one CAR: the memory of those that were sent, 32 bytes each.
const BLOCKS_MAX: usize = 4 << 20;

/// `on_the_way`: the blocks that led to the end of the path.
pub(super) async fn answer(fetcher: Fetcher, found: &Found, on_the_way: Vec<(Cid, Bytes)>, wanted: CarForm) -> Result<Response, Trouble> {
    let root = fetcher.get(&found.cid).await?;
    let rest = Rest::new(&found.cid, &root, &wanted)?;
    let mut sender = Sender { fetcher, rest, sent: HashSet::new(), ready: VecDeque::new() };
    sender.ready.push_back(Bytes::from(dag::car::header(&[found.cid])));
    for (cid, data) in on_the_way {
        sender.send(&cid, data)?;
    }
    sender.send(&found.cid, root)?;
    let mut response = with_type(StatusCode::OK, "application/vnd.ipld.car; version=1; order=dfs; dups=n", Bytes::new());
    *response.body_mut() = Body::stream(pieces(sender));
    answer::attach(&mut response, &format!("{}.car", found.cid));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
    Ok(response)
}

/// What follows the block at the end of the path.
enum Rest {
    Nothing,
    /// Blocks whose turn comes, next one last.
    All(Vec<Cid>),
    File(Box<FileReader>),
    Directory(Box<DirectoryReader>),
}

impl Rest {
    fn new(cid: &Cid, root: &Bytes, wanted: &CarForm) -> Result<Rest, Trouble> {
        Ok(match wanted.scope {
            Scope::Block => Rest::Nothing,
            Scope::All => Rest::All(links(cid, root)?),
            Scope::Entity => match kind(cid, root) {
                Ok(What::File) => {
                    let size = file_size(cid, root).unwrap_or(0);
                    let mut file = FileReader::new(*cid, part(wanted.bytes, size));
                    file.give(cid, root)?;
                    Rest::File(Box::new(file))
                }
                Ok(What::Directory) => {
                    let mut directory = DirectoryReader::new(*cid);
                    directory.give(cid, root)?;
                    Rest::Directory(Box::new(directory))
                }
                _ => Rest::Nothing,
            },
        })
    }
}

fn part(bytes: Option<(i64, Option<i64>)>, size: u64) -> Range<u64> {
    let Some((from, to)) = bytes else { return 0..size };
    let place = |at: i64| if at < 0 { size.saturating_sub(at.unsigned_abs()) } else { at.unsigned_abs() };
    let start = place(from).min(size);
    let end = to.map_or(size, |to| place(to).saturating_add(1).min(size));
    start..end.max(start)
}

/// Links in the order in which they are to be popped.
fn links(cid: &Cid, data: &[u8]) -> Result<Vec<Cid>, Trouble> {
    let mut links = match dag::links(cid, data) {
        Ok(links) => links,
        Err(error) => return Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, &format!("reading the links of {cid}: {error}"))),
    };
    links.retain(|link| dag::block::inline_data(link).is_none());
    links.reverse();
    Ok(links)
}

struct Sender {
    fetcher: Fetcher,
    rest: Rest,
    sent: HashSet<Cid>,
    ready: VecDeque<Bytes>,
}

impl Sender {
    /// Puts a block into the stream, unless it was there or is carried by its CID.
    fn send(&mut self, cid: &Cid, data: Bytes) -> Result<(), Trouble> {
        if dag::block::inline_data(cid).is_some() || !self.sent.insert(*cid) {
            return Ok(());
        }
        if self.sent.len() > BLOCKS_MAX {
            return Err(Trouble::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("more than {BLOCKS_MAX} blocks in one CAR: ask for its parts"),
            ));
        }
        self.ready.push_back(Bytes::from(dag::car::section_head(cid, data.len())));
        self.ready.push_back(data);
        Ok(())
    }

    /// The next piece of the stream; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let (cid, next) = match &mut self.rest {
                Rest::Nothing => return Ok(None),
                Rest::All(stack) => {
                    let Some(cid) = stack.pop() else { return Ok(None) };
                    if self.sent.contains(&cid) {
                        continue;
                    }
                    (cid, stack.iter().rev().filter(|next| !self.sent.contains(*next)).take(AHEAD).copied().collect())
                }
                Rest::File(file) => match file.step()? {
                    FileStep::Need(cid) => (cid, file.upcoming(AHEAD)),
                    FileStep::Data(_) => continue,
                    FileStep::Done => return Ok(None),
                },
                Rest::Directory(directory) => match directory.step()? {
                    ListStep::Need(cid) => (cid, directory.upcoming(AHEAD)),
                    ListStep::Entry(_) => continue,
                    ListStep::Done => return Ok(None),
                },
            };
            let next: Vec<Cid> = next.into_iter().filter(|next| *next != cid).collect();
            let data = self.fetcher.get_with_next(&cid, next).await?;
            match &mut self.rest {
                Rest::All(stack) => stack.extend(links(&cid, &data)?),
                Rest::File(file) => file.give(&cid, &data)?,
                Rest::Directory(directory) => directory.give(&cid, &data)?,
                Rest::Nothing => {}
            }
            self.send(&cid, data)?;
        }
    }
}

fn pieces(sender: Sender) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold(Some(sender), |sender| async move {
        let mut sender = sender?;
        match sender.next().await {
            Ok(piece) => piece.map(|piece| (Ok(piece), Some(sender))),
            Err(trouble) => Some((Err(Broken(trouble.message)), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_files_are_cut_to_what_there_is() {
        for (bytes, expected) in [
            (None, 0..100),
            (Some((0, None)), 0..100),
            (Some((10, Some(19))), 10..20),
            (Some((-10, None)), 90..100),
            (Some((0, Some(-11))), 0..90),
            (Some((50, Some(500))), 50..100),
            (Some((500, None)), 100..100),
            (Some((20, Some(10))), 20..20),
        ] {
            assert_eq!(part(bytes, 100), expected, "{bytes:?}");
        }
    }
}
