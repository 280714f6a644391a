//! `multipart/form-data` as a stream: heads of parts and pieces of their content, in order, nothing whole in memory.
//!
//! [`Splitter`] is the machine (bytes in, pieces out), [`Parts`] drives it from a request's body.

use crate::message::{BodyError, RequestBody};
use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// The most bytes a part's head may have; a path of 4 KiB, escaped, fits three times.
const HEAD_MAX: usize = 32 << 10;
/// RFC 2046.
const BOUNDARY_MAX: usize = 70;

/// Why a body is no multipart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("request Content-Type isn't multipart/form-data")]
    NotMultipart,
    #[error("no multipart boundary param in Content-Type")]
    NoBoundary,
    #[error("the head of a part is longer than {HEAD_MAX} bytes")]
    HeadTooLong,
    #[error("the head of a part is malformed")]
    BadHead,
    #[error("a boundary is followed by something else than a part")]
    BadBoundary,
    #[error("the request ended in the middle of a part")]
    Unfinished,
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartHead {
    /// Media type, in small letters, without parameters; empty when not said.
    pub content_type: String,
    /// `filename`, URL escapes decoded; none when there is none. Names of files are bytes, not text.
    pub file_name: Option<Vec<u8>>,
}

/// What comes out of a body, in order: `Head (Data* PartEnd)`, …, `End`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Head(PartHead),
    Data(Bytes),
    PartEnd,
    End,
}

/// The boundary named by a `Content-Type` header.
pub(crate) fn boundary(content_type: Option<&[u8]>) -> Result<String, MultipartError> {
    let value = content_type.ok_or(MultipartError::NotMultipart)?;
    let (media, parameters) = split_once(value, b';').unwrap_or((value, b""));
    if !media.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
        return Err(MultipartError::NotMultipart);
    }
    let boundary = parameter(parameters, "boundary").ok_or(MultipartError::NoBoundary)?;
    let is_good = !boundary.is_empty() && boundary.len() <= BOUNDARY_MAX && boundary.iter().all(|byte| (b' '..=b'~').contains(byte));
    if is_good { String::from_utf8(boundary).map_err(|_| MultipartError::NoBoundary) } else { Err(MultipartError::NoBoundary) }
}

/// Reads `name=value` or `name="value"` out of `; a=b; c="d"`.
fn parameter(text: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let mut rest = text;
    loop {
        let start = rest.iter().position(|byte| !b" \t;\r\n".contains(byte)).unwrap_or(rest.len());
        let (name, after) = split_once(&rest[start..], b'=')?;
        let (value, after) = if let Some(quoted) = after.strip_prefix(b"\"") {
            unquote(quoted)?
        } else {
            let end = memchr::memchr(b';', after).unwrap_or(after.len());
            (after[..end].trim_ascii().to_vec(), &after[end..])
        };
        if name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(value);
        }
        rest = after;
    }
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    memchr::memchr(at, text).map(|place| (&text[..place], &text[place + 1..]))
}

/// The value up to the closing quote, backslash escapes undone, and what follows.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b'"' => return Some((value, &text[at + 1..])),
            b'\\' => {
                at += 1;
                let escaped = *text.get(at)?;
                if !matches!(escaped, b'"' | b'\\') {
                    // Browsers of old send Windows paths unescaped.
                    value.push(b'\\');
                }
                value.push(escaped);
            }
            byte => value.push(byte),
        }
        at += 1;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Preamble,
    AfterBoundary,
    Head,
    ContentStart,
    Content,
    Done,
}

/// The machine: feed bytes, take pieces.
pub(crate) struct Splitter {
    delimiter: memmem::Finder<'static>,
    /// What was fed and not given out; content leaves it in slices, without being copied.
    buffer: Bytes,
    place: Place,
    is_finished: bool,
}

impl Splitter {
    pub fn new(boundary: &str) -> Splitter {
        let delimiter = memmem::Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        // The line break before the first boundary is the start of the body.
        Splitter { delimiter, buffer: Bytes::from_static(b"\r\n"), place: Place::Preamble, is_finished: false }
    }

    /// Takes the next bytes; to be called when [`Splitter::next`] gave none.
    pub fn feed(&mut self, data: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = data;
            return;
        }
        // A piece of a head or of a delimiter waits: it goes before. What is joined already grows in place, so that a client that
        // sends byte by byte costs no more than its bytes.
        let waiting = std::mem::take(&mut self.buffer);
        let mut joined = waiting.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        joined.extend_from_slice(&data);
        self.buffer = joined.freeze();
    }

    /// No more bytes will come.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The next piece; none when more bytes are needed.
    pub fn next(&mut self) -> Result<Option<Piece>, MultipartError> {
        loop {
            let step = match self.place {
                Place::Preamble => self.skip_preamble(),
                Place::AfterBoundary => self.after_boundary()?,
                Place::Head => self.head()?,
                Place::ContentStart => self.content_start(),
                Place::Content => self.content(),
                Place::Done => Step::Out(Piece::End),
            };
            match step {
                Step::Out(piece) => return Ok(Some(piece)),
                Step::Again => {}
                Step::Starved if self.is_finished => return Err(MultipartError::Unfinished),
                Step::Starved => return Ok(None),
            }
        }
    }

    fn skip_preamble(&mut self) -> Step {
        match self.delimiter.find(&self.buffer) {
            Some(at) => {
                self.skip(at + self.delimiter.needle().len());
                self.place = Place::AfterBoundary;
                Step::Again
            }
            None => {
                let passed = self.buffer.len() - self.pending_tail();
                self.skip(passed);
                Step::Starved
            }
        }
    }

    /// Behind a boundary stands `--` (the end), or blanks and a line break (a part).
    fn after_boundary(&mut self) -> Result<Step, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.buffer.clear();
            self.place = Place::Done;
            return Ok(Step::Again);
        }
        let blanks = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &self.buffer[blanks..] {
            [b'\r', b'\n', ..] => {
                // The line break stays: a head without lines is `\r\n\r\n` seen from here.
                self.skip(blanks);
                self.place = Place::Head;
                Ok(Step::Again)
            }
            [] | [b'\r'] if blanks < HEAD_MAX => Ok(Step::Starved),
            [b'-'] if blanks == 0 => Ok(Step::Starved),
            _ => Err(MultipartError::BadBoundary),
        }
    }

    fn head(&mut self) -> Result<Step, MultipartError> {
        let end = memmem::find(&self.buffer[..self.buffer.len().min(HEAD_MAX)], b"\r\n\r\n");
        let Some(end) = end else {
            return if self.buffer.len() >= HEAD_MAX { Err(MultipartError::HeadTooLong) } else { Ok(Step::Starved) };
        };
        let head = parse_head(&self.buffer[..end])?;
        self.skip(end + 4);
        self.place = Place::ContentStart;
        Ok(Step::Out(Piece::Head(head)))
    }

    /// Some clients send no line break of its own before the boundary behind an empty part; Go takes that too.
    fn content_start(&mut self) -> Step {
        let bare = &self.delimiter.needle()[2..];
        if self.buffer.starts_with(bare) {
            let length = bare.len();
            self.skip(length);
            self.place = Place::AfterBoundary;
            return Step::Out(Piece::PartEnd);
        }
        if bare.starts_with(&self.buffer) && !self.is_finished {
            return Step::Starved;
        }
        self.place = Place::Content;
        Step::Again
    }

    fn content(&mut self) -> Step {
        match self.delimiter.find(&self.buffer) {
            Some(0) => {
                self.skip(self.delimiter.needle().len());
                self.place = Place::AfterBoundary;
                Step::Out(Piece::PartEnd)
            }
            Some(at) => Step::Out(Piece::Data(self.buffer.split_to(at))),
            None => {
                let ready = self.buffer.len() - self.pending_tail();
                if ready == 0 { Step::Starved } else { Step::Out(Piece::Data(self.buffer.split_to(ready))) }
            }
        }
    }

    /// How many bytes at the end may be the beginning of a delimiter.
    fn pending_tail(&self) -> usize {
        let needle = self.delimiter.needle();
        let from = self.buffer.len().saturating_sub(needle.len() - 1);
        let tail = &self.buffer[from..];
        memchr::memchr_iter(b'\r', tail).map(|at| &tail[at..]).find(|rest| needle.starts_with(rest)).map_or(0, <[u8]>::len)
    }

    fn skip(&mut self, count: usize) {
        let _ = self.buffer.split_to(count);
    }
}

enum Step {
    Out(Piece),
    Again,
    Starved,
}

fn parse_head(lines: &[u8]) -> Result<PartHead, MultipartError> {
    let mut head = PartHead::default();
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (name, value) = split_once(line, b':').ok_or(MultipartError::BadHead)?;
        if name.eq_ignore_ascii_case(b"content-type") {
            let (media, _) = split_once(value, b';').unwrap_or((value, b""));
            head.content_type = String::from_utf8_lossy(media.trim_ascii()).to_ascii_lowercase();
        } else if name.eq_ignore_ascii_case(b"content-disposition") {
            let (_, parameters) = split_once(value, b';').unwrap_or((value, b""));
            head.file_name = parameter(parameters, "filename").map(|name| unescape_name(&name));
        }
    }
    Ok(head)
}

/// Names travel as Go's `url.QueryEscape` writes them: `%41`, and `+` for a blank.
fn unescape_name(name: &[u8]) -> Vec<u8> {
    let blanks: Vec<u8> = name.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    crate::query::decode_bytes(&blanks)
}

/// The parts of a request, as they arrive.
pub(crate) struct Parts {
    body: RequestBody,
    splitter: Splitter,
}

impl Parts {
    pub fn new(body: RequestBody, content_type: Option<&[u8]>) -> Result<Parts, MultipartError> {
        let boundary = boundary(content_type)?;
        Ok(Parts { body, splitter: Splitter::new(&boundary) })
    }

    /// The next piece.
    pub async fn next(&mut self) -> Result<Piece, MultipartError> {
        loop {
            if let Some(piece) = self.splitter.next()? {
                return Ok(piece);
            }
            match self.body.next().await? {
                Some(data) => self.splitter.feed(data),
                None => self.splitter.finish(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `body`, fed in pieces of `step` bytes; parts as `type:name=content`.
    fn split(body: &[u8], step: usize) -> Result<Vec<String>, String> {
        let mut splitter = Splitter::new("XX");
        let mut chunks = body.chunks(step);
        let mut seen = Vec::new();
        loop {
            match splitter.next().map_err(|error| error.to_string())? {
                Some(Piece::Head(head)) => {
                    let name = head.file_name.unwrap_or_else(|| b"-".to_vec());
                    seen.push(format!("{}:{}=", head.content_type, name.escape_ascii()));
                }
                Some(Piece::Data(data)) => {
                    assert!(!data.is_empty());
                    seen.last_mut().unwrap().push_str(&String::from_utf8_lossy(&data));
                }
                Some(Piece::PartEnd) => seen.last_mut().unwrap().push('.'),
                Some(Piece::End) => return Ok(seen),
                None => match chunks.next() {
                    Some(chunk) => splitter.feed(Bytes::copy_from_slice(chunk)),
                    None => splitter.finish(),
                },
            }
        }
    }

    fn check(body: &str, expected: Result<&[&str], &str>) {
        let expected = expected.map(|parts| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()).map_err(str::to_owned);
        for step in 1..=body.len().max(1) {
            assert_eq!(split(body.as_bytes(), step), expected, "{body:?} in pieces of {step}");
        }
    }

    #[test]
    fn parts_come_out_however_the_bytes_arrive() {
        const F: &str =
            "Content-Disposition: form-data; name=\"file\"; filename=\"a%20b%2Fc\"\r\nContent-Type: Application/X-Directory; x=y\r\n";
        check(&format!("--XX\r\n{F}\r\n\r\n--XX--\r\n"), Ok(&["application/x-directory:a b/c=."]));
        check(&format!("--XX\r\n{F}\r\n--XX--"), Ok(&["application/x-directory:a b/c=."]));
        check(&format!("--XX\r\n{F}\r\nab\r\n-c\r\n--XX\r\n\r\nd\r\n--XX--"), Ok(&["application/x-directory:a b/c=ab\r\n-c.", ":-=d."]));
        check("pre\r\namble--XX\r\n--XX \t\r\n\r\nx\r\n--XX--epilogue", Ok(&[":-=x."]));
        check("--XX--", Ok(&[]));
    }

    #[test]
    fn names_are_bytes_escaped_or_not() {
        for (sent, name) in [
            (&b"%FF%00%C3"[..], &b"\xff\0\xc3"[..]),
            (b"\xff\xfe", b"\xff\xfe"),
            (b"a+b%2B", b"a b+"),
            (b"%zz%4", b"%zz%4"),
            (b"a\\\"b\\c", b"a\"b\\c"),
        ] {
            let head = [b"Content-Disposition: form-data; filename=\"", sent, b"\""].concat();
            assert_eq!(parse_head(&head).unwrap().file_name.as_deref(), Some(name), "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn content_is_shared_not_copied() {
        let body = Bytes::from(format!("--XX\r\n\r\n{}\r\n--XX--", "a".repeat(5000)));
        let mut splitter = Splitter::new("XX");
        splitter.feed(body.slice(..8));
        assert_eq!(splitter.next().unwrap(), Some(Piece::Head(PartHead::default())));
        assert_eq!(splitter.next().unwrap(), None);
        splitter.feed(body.slice(8..3000));
        let Some(Piece::Data(data)) = splitter.next().unwrap() else { panic!("content") };
        assert_eq!((data.as_ptr(), data.len()), (body[8..].as_ptr(), 2992));
    }

    #[test]
    fn broken_bodies_are_refused() {
        check("", Err("the request ended in the middle of a part"));
        check("--XX\r\n\r\nabc", Err("the request ended in the middle of a part"));
        check("--XX\r\n\r\nabc\r\n--X", Err("the request ended in the middle of a part"));
        check("--XXY\r\n\r\nabc\r\n--XX--", Err("a boundary is followed by something else than a part"));
        check("--XX\r\nnonsense\r\n\r\nabc\r\n--XX--", Err("the head of a part is malformed"));
        let long = format!("--XX\r\nA: {}\r\n\r\nabc\r\n--XX--", "x".repeat(HEAD_MAX));
        assert_eq!(split(long.as_bytes(), 1000), Err("the head of a part is longer than 32768 bytes".into()));
    }

    #[test]
    fn random_bytes_never_panic() {
        // xorshift: the same bytes on every run; made of the characters that matter.
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        const ALPHABET: &[&[u8]] = &[
            b"\r",
            b"\n",
            b"--XX",
            b"\r\n--XX",
            b"-",
            b"--",
            b":",
            b"=",
            b"\"",
            b"filename=",
            b"Content-Disposition: ",
            b";",
            b"%",
            b"\\",
            b"\xff",
            b"a",
        ];
        for _ in 0..20_000 {
            let length = random() % 24;
            let body: Vec<u8> = (0..length).flat_map(|_| ALPHABET[(random() % ALPHABET.len() as u64) as usize].to_vec()).collect();
            let whole = split(&body, body.len().max(1));
            let step = (random() % 5 + 1) as usize;
            assert_eq!(whole, split(&body, step), "{:?}", String::from_utf8_lossy(&body));
        }
    }

    #[test]
    fn boundaries_are_read_from_the_header() {
        for (header, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; boundary=\"a b;c\"", Some("a b;c")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"abc", None),
            ("multipart/mixed; boundary=abc", None),
            ("text/plain", None),
        ] {
            assert_eq!(boundary(Some(header.as_bytes())).ok().as_deref(), expected, "{header}");
        }
        assert!(boundary(None).is_err());
    }
}
