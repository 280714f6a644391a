//! Directories: `index.html`, else a listing, streamed entry by entry.

use super::answer::{self, Trouble};
use super::fetch::{AHEAD, Fetcher};
use super::{Asked, What, file, kind};
use crate::message::{Body, Broken, Response, bare, with_type};
use crate::path::{self, PathError};
use crate::query::{decode_percent, encode_segment};
use bytes::Bytes;
use dag::export::{DirectoryReader, Entry, Found, ListStep};
use futures::stream::{self, Stream};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use maud::{DOCTYPE, PreEscaped, html};
use types::{ByteCount, Cid};

/// Changes when the looks of listings change, so that browsers ask anew.
const LOOKS: &str = "1";
/// Entries rendered at once.
const STEP: usize = 256;
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'";

pub(super) async fn answer(asked: &Asked, found: Found, fetcher: Fetcher) -> Result<Response, Trouble> {
    if !asked.path.ends_with('/') {
        return Ok(with_slash(asked));
    }
    if let Some(index) = index(&found.cid, &fetcher).await? {
        let block = fetcher.get(&index).await?;
        if matches!(kind(&index, &block)?, What::File) {
            return file::answer(asked, &found, &index, block, fetcher, "index.html".to_owned()).await;
        }
    }
    let etag = format!("\"DirIndex-{LOOKS}_CID-{}\"", found.cid);
    if answer::is_known(&asked.headers, &etag) {
        return Ok(answer::not_modified(asked, &found, &etag));
    }
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", Bytes::new());
    answer::mark(&mut response, asked, &found, &etag, answer::LISTING);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !asked.is_head {
        let mut listing = Listing { directory: DirectoryReader::new(found.cid), fetcher, is_over: false };
        let mut first = head(asked, &found.cid);
        first.push_str(&listing.rows().await?);
        *response.body_mut() = Body::stream(pieces(first, listing));
    }
    Ok(response)
}

/// The looks of listings.
pub(super) fn style() -> Response {
    let mut response = with_type(StatusCode::OK, "text/css; charset=utf-8", include_str!("listing.css"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}

/// Relative links of pages need the slash.
fn with_slash(asked: &Asked) -> Response {
    let mut response = bare(StatusCode::MOVED_PERMANENTLY);
    let mut location = format!("{}/", asked.path);
    let query: Vec<String> =
        asked.query.pairs().iter().map(|(name, value)| format!("{}={}", encode_segment(name), encode_segment(value))).collect();
    if !query.is_empty() {
        location.push('?');
        location.push_str(&query.join("&"));
    }
    answer::set(response.headers_mut(), "location", &location);
    response
}

async fn index(directory: &Cid, fetcher: &Fetcher) -> Result<Option<Cid>, Trouble> {
    match path::resolve(fetcher.node(), *directory, b"index.html", fetcher.source(), |_, _| {}).await {
        Ok(found) => Ok(Some(found.cid)),
        Err(PathError::NoLink { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Listing {
    directory: DirectoryReader,
    fetcher: Fetcher,
    is_over: bool,
}

impl Listing {
    /// The next rows; empty at the end.
    async fn rows(&mut self) -> Result<String, Trouble> {
        let mut rows = String::new();
        for _ in 0..STEP {
            match self.directory.step()? {
                ListStep::Entry(entry) => rows.push_str(&row(&entry)),
                ListStep::Done => {
                    self.is_over = true;
                    break;
                }
                ListStep::Need(cid) => {
                    let next = self.directory.upcoming(AHEAD + 1).into_iter().filter(|next| *next != cid).collect();
                    let data = self.fetcher.get_with_next(&cid, next).await?;
                    self.directory.give(&cid, &data)?;
                }
            }
        }
        Ok(rows)
    }
}

fn pieces(first: String, listing: Listing) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold((first, Some(listing)), |(text, listing)| async move {
        let mut listing = listing?;
        if !text.is_empty() {
            return Some((Ok(Bytes::from(text)), (String::new(), Some(listing))));
        }
        if listing.is_over {
            return Some((Ok(Bytes::from_static(b"</tbody></table></main></body></html>\n")), (String::new(), None)));
        }
        match listing.rows().await {
            Ok(rows) => {
                // Blocks of a trie may come without entries: a line break keeps the stream going.
                let rows = if rows.is_empty() { "\n".to_owned() } else { rows };
                Some((Ok(Bytes::from(rows)), (String::new(), Some(listing))))
            }
            Err(trouble) => Some((Err(Broken(trouble.message)), (String::new(), None))),
        }
    })
}

/// Everything above the rows; what closes it is the last piece.
fn head(asked: &Asked, cid: &Cid) -> String {
    let shown = decode_percent(&asked.path).into_owned();
    let is_root = asked.names.is_empty() || asked.names.iter().all(|byte| *byte == b'/');
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (shown) }
                link rel="stylesheet" href="/listing.css";
            }
            body {
                main {
                    h1 { "Index of " (crumbs(asked)) }
                    p.cid { (cid) }
                    table {
                        thead { tr { th scope="col" { "Name" } th scope="col" { "Size" } th scope="col" .hash { "CID" } } }
                        tbody { @if !is_root { tr { td { a href=".." { ".." } } td {} td.hash {} } } (PreEscaped("\u{0}")) }
                    }
                }
            }
        }
    };
    let page = page.into_string();
    page.split('\u{0}').next().unwrap_or_default().to_owned()
}

/// The path with a link on each part.
fn crumbs(asked: &Asked) -> maud::Markup {
    let parts: Vec<&str> = asked.path.split('/').filter(|part| !part.is_empty()).collect();
    html! {
        "/" @for (at, part) in parts.iter().enumerate() {
            @let name = decode_percent(part);
            @if at == 0 { (name) } @else { a href={ "/" (parts[..=at].join("/")) "/" } { (name) } }
            "/"
        }
    }
}

fn row(entry: &Entry) -> String {
    let name = String::from_utf8_lossy(&entry.name);
    let cid = entry.cid.to_string();
    html! {
        tr {
            // `./` keeps names with a colon from being read as a scheme.
            td { a href={ "./" (encode_bytes(&entry.name)) } { (name) } }
            td { (ByteCount(entry.tsize)) }
            td.hash { a href={ "/ipfs/" (cid) "?filename=" (encode_segment(&name)) } title=(cid) { (short(&cid)) } }
        }
    }
    .into_string()
}

fn encode_bytes(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(name) => encode_segment(name),
        Err(_) => name.iter().map(|byte| format!("%{byte:02X}")).collect(),
    }
}

fn short(cid: &str) -> String {
    let end = cid.len().saturating_sub(6);
    format!("{}…{}", &cid[..cid.len().min(6)], &cid[end..])
}
