//! Files: whole or in part, streamed.

use super::Asked;
use super::answer::{self, Trouble};
use super::fetch::{AHEAD, Fetcher};
use super::form::Form;
use super::media;
use super::range::{self, Wanted};
use crate::message::{Body, Broken, Response, with_type};
use bytes::Bytes;
use dag::export::{FileReader, FileStep, Found, file_size};
use futures::stream::{self, Stream};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use ipfs::{IpfsNode, Source};
use std::ops::Range;
use std::sync::Arc;
use types::Cid;

/// The name by which the type of a file is told: what the client says, else the end of the path.
pub(super) fn name_of(asked: &Asked) -> String {
    let said = asked.query.get("filename");
    if !said.is_empty() {
        return said.to_owned();
    }
    asked
        .names
        .rsplit(|byte| *byte == b'/')
        .find(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .unwrap_or_default()
}

/// The file under `cid`, whose root block is `block`.
pub(super) async fn answer(
    asked: &Asked,
    found: &Found,
    cid: &Cid,
    block: Bytes,
    fetcher: Fetcher,
    name: String,
) -> Result<Response, Trouble> {
    let size = file_size(cid, &block)
        .ok_or_else(|| Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, &format!("{cid} does not say how long it is")))?;
    let etag = Form::Content.etag(cid);
    let part = match range::wanted(&asked.headers, size, &etag) {
        Wanted::All => 0..size,
        Wanted::Part(part) => part,
        Wanted::Unsatisfiable => {
            let mut response: Response = Trouble::new(StatusCode::RANGE_NOT_SATISFIABLE, &format!("the file has {size} bytes")).into();
            answer::set(response.headers_mut(), "content-range", &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let is_part = part != (0..size) || matches!(range::wanted(&asked.headers, size, &etag), Wanted::Part(_));
    let media = match media::by_name(&name) {
        Some(media) => media,
        // The beginning tells, also when another part is asked for; that part is given even when the beginning is out of reach.
        None => match start(*cid, block.clone(), &fetcher).await {
            Ok(start) => media::media_type(&name, &start),
            Err(_) if part.start > 0 => media::media_type(&name, &[]),
            Err(trouble) => return Err(trouble),
        },
    };
    let mut response = with_type(if is_part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK }, media, Bytes::new());
    answer::mark(&mut response, asked, found, &etag, answer::IMMUTABLE);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if is_part {
        answer::set(headers, "content-range", &format!("bytes {}-{}/{size}", part.start, part.end - 1));
    }
    let kind = if asked.query.get("download") == "true" { "attachment" } else { "inline" };
    if kind == "attachment" || !asked.query.get("filename").is_empty() {
        answer::set(headers, "content-disposition", &answer::disposition(kind, if name.is_empty() { "file" } else { &name }));
    }
    let length = part.end - part.start;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if !asked.is_head && length > 0 {
        let mut reader = Reader { file: FileReader::new(*cid, part), root: Some((*cid, block)), fetcher };
        // What cannot be begun is told with a status, not by a broken stream.
        let first = reader.next().await?;
        *response.body_mut() = Body::sized(bytes_of(first, reader), length);
    }
    Ok(response)
}

/// A part of the file under `cid` as a stream, for other doors; errors in words.
pub(crate) async fn open(node: Arc<dyn IpfsNode>, cid: Cid, part: Range<u64>) -> Result<Body, String> {
    let mut reader = Reader { file: FileReader::new(cid, part), root: None, fetcher: Fetcher::new(node, Source::default()) };
    let first = reader.next().await.map_err(|trouble| trouble.message)?;
    Ok(Body::stream(bytes_of(first, reader)))
}

/// The whole file as a body; what cannot be begun is an error here, not a broken stream.
pub(super) async fn body(cid: &Cid, block: Bytes, fetcher: Fetcher) -> Result<Body, Trouble> {
    let malformed = || Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, &format!("{cid} says no size"));
    let length = file_size(cid, &block).ok_or_else(malformed)?;
    let mut reader = Reader { file: FileReader::new(*cid, 0..length), root: Some((*cid, block)), fetcher };
    let first = reader.next().await?;
    Ok(Body::sized(bytes_of(first, reader), length))
}

struct Reader {
    file: FileReader,
    /// The root block, which is here already.
    root: Option<(Cid, Bytes)>,
    fetcher: Fetcher,
}

impl Reader {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            match self.file.step()? {
                FileStep::Data(data) if data.is_empty() => {}
                FileStep::Data(data) => return Ok(Some(data)),
                FileStep::Done => return Ok(None),
                FileStep::Need(cid) => {
                    let data = match self.root.take() {
                        Some((root, data)) if root == cid => data,
                        _ => {
                            let next = self.file.upcoming(AHEAD + 1).into_iter().filter(|next| *next != cid).collect();
                            self.fetcher.get_with_next(&cid, next).await?
                        }
                    };
                    self.file.give(&cid, &data)?;
                }
            }
        }
    }
}

fn bytes_of(first: Option<Bytes>, reader: Reader) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold((first, Some(reader)), |(first, reader)| async move {
        if let Some(first) = first {
            return Some((Ok(first), (None, reader)));
        }
        let mut reader = reader?;
        match reader.next().await {
            Ok(data) => data.map(|data| (Ok(data), (None, Some(reader)))),
            Err(trouble) => {
                tracing::debug!(reason = trouble.message, "a file broke off");
                Some((Err(Broken(trouble.message)), (None, None)))
            }
        }
    })
}

/// The first bytes of a file.
async fn start(cid: Cid, block: Bytes, fetcher: &Fetcher) -> Result<Bytes, Trouble> {
    let mut file = FileReader::new(cid, 0..512);
    let mut root = Some(block);
    loop {
        match file.step()? {
            FileStep::Data(data) if data.is_empty() => {}
            FileStep::Data(data) => return Ok(data),
            FileStep::Done => return Ok(Bytes::new()),
            FileStep::Need(needed) => {
                let data = match root.take() {
                    Some(block) if needed == cid => block,
                    _ => fetcher.get(&needed).await?,
                };
                file.give(&needed, &data)?;
            }
        }
    }
}
