//! The media type of a file: by its name, else by how it begins.

/// Types by extension, those that browsers show and people share.
const BY_EXTENSION: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("apng", "image/apng"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("car", "application/vnd.ipld.car"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mid", "audio/midi"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rss", "application/rss+xml"),
    ("rtf", "application/rtf"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "text/plain; charset=utf-8"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "text/xml; charset=utf-8"),
    ("xz", "application/x-xz"),
    ("yaml", "text/plain; charset=utf-8"),
    ("yml", "text/plain; charset=utf-8"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// How files of a type begin.
const BY_START: &[(&[u8], &str)] = &[
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"OggS\0", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"\0asm", "application/wasm"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
];

/// How HTML begins, after blanks, in any case.
const HTML_STARTS: [&str; 10] = ["<!doctype html", "<html", "<head", "<body", "<script", "<title", "<h1", "<div", "<p>", "<!--"];

/// The type of a file with this name and these first bytes.
pub(super) fn media_type(name: &str, start: &[u8]) -> &'static str {
    by_name(name).unwrap_or_else(|| sniff(start))
}

/// The type that the name tells.
pub(super) fn by_name(name: &str) -> Option<&'static str> {
    let extension = name.rsplit_once('.')?.1.to_ascii_lowercase();
    BY_EXTENSION.binary_search_by(|(known, _)| (*known).cmp(&extension)).ok().map(|at| BY_EXTENSION[at].1)
}

fn sniff(start: &[u8]) -> &'static str {
    let start = &start[..start.len().min(512)];
    if let Some((_, media)) = BY_START.iter().find(|(beginning, _)| start.starts_with(beginning)) {
        return media;
    }
    match start {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => return "image/webp",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => return "audio/wav",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => return "image/avif",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => return "video/mp4",
        _ => {}
    }
    let Some(text) = as_text(start) else { return "application/octet-stream" };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |start: &str| text.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
    if HTML_STARTS.iter().any(|start| begins(start)) {
        "text/html; charset=utf-8"
    } else if begins("<?xml") && text.contains("<svg") || begins("<svg") {
        "image/svg+xml"
    } else if begins("<?xml") {
        "text/xml; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    }
}

/// The bytes as text, if they are some; a letter cut off at the end does not count.
fn as_text(start: &[u8]) -> Option<&str> {
    let is_binary = start.iter().any(|byte| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b));
    if is_binary {
        return None;
    }
    match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_sorted_for_the_search() {
        assert!(BY_EXTENSION.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn types_come_from_names_then_from_beginnings() {
        for (name, start, expected) in [
            ("a.HTML", &b""[..], "text/html; charset=utf-8"),
            ("a.tar.gz", b"", "application/gzip"),
            ("site.css", b"<html>", "text/css; charset=utf-8"),
            ("README", b"# hello", "text/plain; charset=utf-8"),
            ("", b"", "text/plain; charset=utf-8"),
            ("x", b"\xef\xbb\xbf  <!DOCTYPE HTML><p>", "text/html; charset=utf-8"),
            ("x", b"<?xml version='1.0'?><svg xmlns='x'/>", "image/svg+xml"),
            ("x.unknown", b"\x89PNG\r\n\x1a\n....", "image/png"),
            ("x", b"RIFF....WEBPVP8", "image/webp"),
            ("x", b"....ftypisom", "video/mp4"),
            ("x", b"abc\xe2\x82", "text/plain; charset=utf-8"),
            ("x", b"abc\xff\xff", "application/octet-stream"),
            ("x", b"abc\0def", "application/octet-stream"),
        ] {
            assert_eq!(media_type(name, start), expected, "{name} {start:?}");
        }
    }
}
