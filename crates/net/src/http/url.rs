//! Addresses of servers, as people write them.

use url::{Position, Url};

/// Text that is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {why}: write it like https://example.org or http://10.0.0.7:8080")]
pub struct BadUrl {
    text: String,
    why: String,
}

/// Reads the address of a server, below which paths are asked for: without a slash at the end.
pub fn base(text: &str) -> Result<Url, BadUrl> {
    let bad = |why: &str| BadUrl { text: text.to_owned(), why: why.to_owned() };
    let mut url = Url::parse(text.trim()).map_err(|error| bad(&format!("is no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("is neither http nor https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // It would be shown with its state.
        return Err(bad("carries a password, which is not supported"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("has a query or a fragment, which the base of paths cannot have"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// For people: as it is written, without a slash at the end.
pub fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Where a redirect leads: by the same scheme, or from http to https.
pub(super) fn redirected(from: &Url, location: &str) -> Result<Url, String> {
    let shortened: String = location.chars().take(200).collect();
    if location.is_empty() {
        return Err("it does not say where to".to_owned());
    }
    let to = from.join(location).map_err(|error| format!("{shortened:?} ({error})"))?;
    match (from.scheme(), to.scheme()) {
        (from, to) if from == to => {}
        ("http", "https") => {}
        (_, scheme) => return Err(format!("to {scheme}, from {}", &from[..Position::BeforePath])),
    }
    if to.host_str().is_none_or(str::is_empty) || !to.username().is_empty() || to.password().is_some() {
        return Err(format!("{shortened:?}"));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_read_and_mistakes_named() {
        for (text, read) in [
            ("https://example.org", "https://example.org"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            (" https://example.org/a/b/ ", "https://example.org/a/b"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(base(text).map(|url| shown(&url)), Ok(read.to_owned()), "{text}");
        }
        for (text, why) in [
            ("example.org", "no URL"),
            ("", "no URL"),
            ("ftp://example.org", "neither http nor https"),
            ("https://me:secret@example.org", "password"),
            ("https://example.org/?x", "query"),
            ("https://example.org/#x", "fragment"),
            ("http://", "no URL"),
        ] {
            let error = base(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("write it like"), "{text}: {error}");
        }
    }

    #[test]
    fn redirects_stay_with_their_scheme_or_become_safer() {
        let from = |text: &str| Url::parse(text).unwrap();
        let to = |text: &str, location: &str| redirected(&from(text), location).map(|url| url.to_string());
        assert_eq!(to("http://a/x/y", "z"), Ok("http://a/x/z".to_owned()));
        assert_eq!(to("http://a/x", "https://b/"), Ok("https://b/".to_owned()));
        assert_eq!(to("https://a/x", "//b/c"), Ok("https://b/c".to_owned()));
        for (text, location) in [
            ("https://a/", "http://a/"),
            ("http://a/", "file:///etc/passwd"),
            ("http://a/", ""),
            ("http://a/", "http://u:p@b/"),
            ("http://a/", "http://"),
        ] {
            assert!(to(text, location).is_err(), "{text} -> {location}");
        }
    }
}
