//! Who may call: host names, origins, credentials.
//!
//! A door on loopback is reachable by every web page that the user of the machine opens. Two tricks are closed: a foreign name
//! that resolves to 127.0.0.1 (the `Host` must be an IP literal, `localhost` or a name of ours), and a foreign page that sends
//! a form or a fetch (a changing request with a foreign `Origin` is refused; reads get no CORS headers).

use crate::message::{Response, bare, error_json};
use base64::Engine;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use std::net::{IpAddr, SocketAddr};

const REALM: &str = "Restricted IPFS Cluster API";

/// Users and their passwords.
#[derive(Clone)]
pub struct Credentials {
    /// Base64 of `user:password`, as it travels.
    encoded: Vec<String>,
}

impl Credentials {
    /// Takes pairs of user and password; pairs with an empty half never match.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Credentials {
        let encode = |(user, password): (String, String)| {
            let is_usable = !user.is_empty() && !password.is_empty() && !user.contains(':');
            is_usable.then(|| base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
        };
        Credentials { encoded: pairs.into_iter().filter_map(encode).collect() }
    }

    fn admits(&self, given: &str) -> bool {
        let mut is_admitted = false;
        for known in &self.encoded {
            is_admitted |= is_equal(known.as_bytes(), given.as_bytes());
        }
        is_admitted
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} users, ***)", self.encoded.len())
    }
}

/// Compares in a time that does not tell where they differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// Why an address is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from other machines and no credentials are set: whoever reaches it could change the cluster. Listen on 127.0.0.1, or set a user and password for this door"
)]
pub struct UnsafeListen {
    /// The refused address.
    pub address: SocketAddr,
}

/// Refuses addresses that strangers reach when no credentials are set.
pub fn check_listen(address: SocketAddr, has_credentials: bool) -> Result<(), UnsafeListen> {
    let ip = address.ip().to_canonical();
    if ip.is_loopback() || has_credentials { Ok(()) } else { Err(UnsafeListen { address }) }
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Host(String),
    Origin(String),
    NoCredentials,
    WrongCredentials,
}

impl Refusal {
    pub fn into_response(self) -> Response {
        match self {
            Refusal::Host(host) => error_json(
                StatusCode::FORBIDDEN,
                &format!("{host:?} is not a name of this peer: call it by IP address or localhost, or add the name to its configuration"),
            ),
            Refusal::Origin(origin) => error_json(
                StatusCode::FORBIDDEN,
                &format!("pages of {origin} may not change this cluster: add the origin to the configuration to allow it"),
            ),
            Refusal::NoCredentials => {
                let mut response = error_json(StatusCode::UNAUTHORIZED, "unauthorized: no auth provided");
                response.headers_mut().append(header::WWW_AUTHENTICATE, basic_challenge());
                response
            }
            Refusal::WrongCredentials => {
                let mut response = error_json(StatusCode::UNAUTHORIZED, "unauthorized: access denied");
                response.headers_mut().append(header::WWW_AUTHENTICATE, basic_challenge());
                response
            }
        }
    }
}

fn basic_challenge() -> HeaderValue {
    HeaderValue::from_str(&format!("Basic realm=\"{REALM}\"")).unwrap_or_else(|_| HeaderValue::from_static("Basic"))
}

/// The rules of one door.
pub(crate) struct Guard {
    names: Vec<String>,
    origins: Vec<String>,
    credentials: Option<Credentials>,
}

impl Guard {
    pub fn new(names: Vec<String>, origins: Vec<String>, credentials: Option<Credentials>) -> Guard {
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Guard { names, origins, credentials }
    }

    /// Checks host, origin and credentials; gives the foreign origin that may read the answer, if there is one.
    pub fn check(&self, head: &Parts) -> Result<Option<HeaderValue>, Refusal> {
        let host = head.headers.get(header::HOST).map(text_of);
        // With credentials a foreign name gains nothing: browsers do not send them to it.
        if self.credentials.is_none() {
            let authority = head.uri.authority().map(|authority| authority.as_str().to_owned());
            for host in host.iter().chain(authority.iter()) {
                if !self.is_own_host(host) {
                    return Err(Refusal::Host(host.clone()));
                }
            }
        }
        let origin = self.check_origin(head, host.as_deref())?;
        if let Some(credentials) = &self.credentials {
            let is_open = head.method == Method::OPTIONS || (head.method == Method::GET && head.uri.path() == "/health");
            if !is_open {
                check_credentials(credentials, &head.headers)?;
            }
        }
        Ok(origin)
    }

    fn is_own_host(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.ends_with(".localhost") || literal.parse::<IpAddr>().is_ok() || self.names.contains(&name)
    }

    fn check_origin(&self, head: &Parts, host: Option<&str>) -> Result<Option<HeaderValue>, Refusal> {
        let Some(origin) = head.headers.get(header::ORIGIN) else { return Ok(None) };
        let text = text_of(origin);
        let (_, authority) = text.split_once("://").unwrap_or(("", ""));
        if !authority.is_empty() && host.is_some_and(|host| host.eq_ignore_ascii_case(authority)) {
            return Ok(None);
        }
        if self.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(&text)) {
            return Ok(Some(origin.clone()));
        }
        let is_reading = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_reading { Ok(None) } else { Err(Refusal::Origin(text)) }
    }

    /// Lets pages of an allowed foreign origin read the answer.
    pub fn let_read(&self, origin: &HeaderValue, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "Content-Type, Content-Range, Content-Length, ETag, X-Ipfs-Path, X-Ipfs-Roots, X-Stream-Error, X-Chunked-Output",
            ),
        );
    }

    /// The answer to the question of a browser whether it may ask.
    pub fn preflight(&self, origin: &HeaderValue) -> Response {
        let mut response = bare(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Authorization, Content-Type, Range, If-None-Match, X-Requested-With"),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        response
    }
}

fn check_credentials(credentials: &Credentials, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(given) = headers.get(header::AUTHORIZATION).map(text_of) else { return Err(Refusal::NoCredentials) };
    let (scheme, value) = given.split_once(' ').unwrap_or((&given, ""));
    let is_admitted = scheme.eq_ignore_ascii_case("basic") && credentials.admits(value.trim());
    if is_admitted { Ok(()) } else { Err(Refusal::WrongCredentials) }
}

fn text_of(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// `host` of `host:port`; IPv6 literals keep their brackets.
fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, method: Method, headers: &[(&str, &str)]) -> Result<Option<HeaderValue>, Refusal> {
        let mut request = hyper::Request::builder().method(method).uri("/pins/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn hosts_of_strangers_are_refused() {
        let guard = Guard::new(vec!["Peer1.lan".into()], vec![], None);
        for (host, is_own) in [
            ("127.0.0.1:9094", true),
            ("127.0.0.1", true),
            ("[::1]:9094", true),
            ("192.168.1.5:80", true),
            ("localhost:9094", true),
            ("LOCALHOST", true),
            ("peer1.lan:9094", true),
            ("evil.example", false),
            ("evil.example:9094", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(check(&guard, Method::GET, &[("host", host)]).is_ok(), is_own, "{host}");
        }
        assert!(check(&guard, Method::GET, &[]).is_ok(), "clients that are no browsers may leave it out");
    }

    #[test]
    fn pages_of_strangers_change_nothing() {
        let guard = Guard::new(vec![], vec!["https://app.example".into()], None);
        let host = ("host", "127.0.0.1:9094");
        for (method, origin, is_let_in) in [
            (Method::POST, "http://127.0.0.1:9094", true),
            (Method::POST, "http://127.0.0.1:8080", false),
            (Method::POST, "http://evil.example", false),
            (Method::DELETE, "http://evil.example", false),
            (Method::POST, "null", false),
            (Method::POST, "", false),
            (Method::GET, "http://evil.example", true),
            (Method::POST, "https://app.example", true),
        ] {
            assert_eq!(check(&guard, method.clone(), &[host, ("origin", origin)]).is_ok(), is_let_in, "{method} {origin}");
        }
        assert_eq!(check(&guard, Method::GET, &[host, ("origin", "http://evil.example")]), Ok(None), "may ask, may not read");
        assert!(matches!(check(&guard, Method::GET, &[host, ("origin", "https://app.example")]), Ok(Some(_))));
    }

    #[test]
    fn credentials_are_asked_for() {
        let credentials = Credentials::new([("a".into(), "b".into()), ("empty".into(), String::new())]);
        let guard = Guard::new(vec![], vec![], Some(credentials));
        for (given, expected) in [
            ("Basic YTpi", Ok(None)),
            ("basic YTpi", Ok(None)),
            ("Basic YTpj", Err(Refusal::WrongCredentials)),
            ("Basic ZW1wdHk6", Err(Refusal::WrongCredentials)),
            ("Bearer YTpi", Err(Refusal::WrongCredentials)),
            ("", Err(Refusal::WrongCredentials)),
        ] {
            assert_eq!(check(&guard, Method::GET, &[("host", "any.example"), ("authorization", given)]), expected, "{given}");
        }
        assert_eq!(check(&guard, Method::GET, &[]), Err(Refusal::NoCredentials));
        assert_eq!(check(&guard, Method::OPTIONS, &[]), Ok(None));
    }

    #[test]
    fn addresses_open_to_others_need_credentials() {
        for (address, has_credentials, is_taken) in [
            ("127.0.0.1:9094", false, true),
            ("[::1]:9094", false, true),
            ("[::ffff:127.0.0.1]:9094", false, true),
            ("0.0.0.0:9094", false, false),
            ("[::]:9094", false, false),
            ("192.168.1.2:9094", false, false),
            ("0.0.0.0:9094", true, true),
        ] {
            assert_eq!(check_listen(address.parse().unwrap(), has_credentials).is_ok(), is_taken, "{address}");
        }
    }
}
