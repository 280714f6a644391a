//! Reading dag-json without building a tree: where the links are.
//!
//! A link is a map with one key, `/`, whose value is a text: `{"/": "bafy..."}`. `{"/": {"bytes": ...}}` is not one.

use crate::links::MAX_LINKS;
use crate::{DecodeError, MAX_BLOCK};
use std::str::FromStr;
use types::Cid;

/// Lists and maps inside each other.
pub const DEPTH_MAX: usize = 256;

const WHAT: &str = "dag-json";

/// Appends the links of a block in the order they stand there. Texts are checked for their ends only; a key or CID with escapes is no link.
pub fn links(block: &[u8], links: &mut Vec<Cid>) -> Result<(), DecodeError> {
    if block.len() > MAX_BLOCK {
        return Err(DecodeError::too_much("bytes in a dag-json block", MAX_BLOCK));
    }
    let mut tokens = Tokens { rest: block };
    let mut depth = 0usize;
    let mut last = [Token::Other; 4];
    while let Some(token) = tokens.next()? {
        match token {
            Token::Open | Token::OpenList if depth == DEPTH_MAX => {
                return Err(DecodeError::too_much("levels in a dag-json block", DEPTH_MAX));
            }
            Token::Open | Token::OpenList => depth += 1,
            Token::Close | Token::CloseList => {
                depth = depth.checked_sub(1).ok_or_else(|| DecodeError::malformed(WHAT, "one bracket too many"))?;
            }
            Token::Text(_) | Token::Colon | Token::Other => {}
        }
        if let ([Token::Open, Token::Text(b"/"), Token::Colon, Token::Text(cid)], Token::Close) = (last, token) {
            if links.len() == MAX_LINKS {
                return Err(DecodeError::too_much("links in a dag-json block", MAX_LINKS));
            }
            links.push(parse_cid(cid)?);
        }
        last.rotate_left(1);
        last[3] = token;
    }
    if depth == 0 { Ok(()) } else { Err(DecodeError::truncated(WHAT)) }
}

fn parse_cid(text: &[u8]) -> Result<Cid, DecodeError> {
    // Longer than a CID in any base; base58 takes time by the square of the length.
    const TEXT_LONGEST: usize = 2048;
    if text.len() > TEXT_LONGEST {
        return Err(DecodeError::Link("longer than any CID".to_owned()));
    }
    let text = std::str::from_utf8(text).map_err(|error| DecodeError::Link(error.to_string()))?;
    Cid::from_str(text).map_err(|error| DecodeError::Link(error.to_string()))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    OpenList,
    CloseList,
    Colon,
    /// The inside of a text as it stands there.
    Text(&'a [u8]),
    /// Commas, numbers, words.
    Other,
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Result<Option<Token<'a>>, DecodeError> {
        let blank = self.rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.rest = &self.rest[blank..];
        let Some((first, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        Ok(Some(match first {
            b'{' => Token::Open,
            b'}' => Token::Close,
            b'[' => Token::OpenList,
            b']' => Token::CloseList,
            b':' => Token::Colon,
            b'"' => self.text()?,
            _ => Token::Other,
        }))
    }

    /// The rest of a text whose opening quote was read.
    fn text(&mut self) -> Result<Token<'a>, DecodeError> {
        let mut is_escaped = false;
        for (index, byte) in self.rest.iter().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    let text = &self.rest[..index];
                    self.rest = &self.rest[index + 1..];
                    return Ok(Token::Text(text));
                }
                _ => {}
            }
        }
        Err(DecodeError::truncated(WHAT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    fn check(block: &str, expected: Result<usize, ()>) {
        let mut found = Vec::new();
        let result = links(block.as_bytes(), &mut found).map(|()| found.len()).map_err(|_| ());
        assert_eq!(result, expected, "{block}");
        assert!(found.iter().all(|cid| cid.to_string() == A));
    }

    #[test]
    fn links_are_maps_with_a_single_slash() {
        check(&format!(r#"{{"x": [{{"/": "{A}"}}, 1, null], "y": {{"/":"{A}"}} }}"#), Ok(2));
        check(&format!(r#"{{"/":"{A}"}}"#), Ok(1));
        check(&format!(r#"{{"/":"{A}","z":1}}"#), Ok(0));
        check(&format!(r#"{{"a":"{A}"}}"#), Ok(0));
        check(&format!(r#"["{{\"/\":\"{A}\"}}"]"#), Ok(0));
        check(r#"{"/":{"bytes":"AAAA"}}"#, Ok(0));
        check("[]", Ok(0));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for block in [r#"{"/":"no cid"}"#, "{", "]", r#""open"#, r#"{"a":"\"}"#] {
            check(block, Err(()));
        }
        check(&"[".repeat(DEPTH_MAX + 2), Err(()));
    }
}
