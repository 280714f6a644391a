//! A client against servers on the loopback that do what servers must not.

use super::*;
use crate::throttle::Traffic;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

/// Short enough for a test, long enough for a busy machine.
fn limits() -> HttpLimits {
    let short = Duration::from_millis(300);
    HttpLimits { connect: Duration::from_secs(5), head: short, stall: short, whole: Duration::from_secs(30), ..HttpLimits::default() }
}

fn client(limits: HttpLimits) -> HttpClient {
    HttpClient::new(HttpOptions { agent: "test".to_owned(), limits, ..HttpOptions::default() }).unwrap()
}

/// Answers every request with what `answer` makes of its head, and counts connections. Nothing made: silence.
async fn server(answer: impl Fn(&str) -> Option<Vec<u8>> + Clone + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            tokio::spawn(async move { serve(stream, answer).await });
        }
    });
    (address, connections)
}

async fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> Option<Vec<u8>>) {
    while let Some(head) = head(&mut stream).await {
        let Some(bytes) = answer(&head) else { return std::future::pending().await };
        if stream.write_all(&bytes).await.is_err() || bytes.windows(17).any(|part| part == b"connection: close") {
            return;
        }
    }
}

async fn head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn ok(body: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

fn to(location: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

fn url(address: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("http://{address}{path}")).unwrap()
}

async fn get(client: &HttpClient, url: &Url, most: usize, may_be_private: bool) -> Result<(u16, Bytes), HttpError> {
    let answer = client.get(Ask { url, accept: "text/plain", most, may_be_private }).await?;
    Ok((answer.status, answer.body.all().await?))
}

#[tokio::test]
async fn an_answer_comes_whole_and_its_connection_is_used_again() {
    let (address, connections) = server(|head| {
        assert!(head.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{head}");
        for line in ["accept: text/plain\r\n", "user-agent: test\r\n", "via: 1.1 pinfold\r\n", "host: 127.0.0.1:"] {
            assert!(head.contains(line), "{head}");
        }
        ok("hello")
    })
    .await;
    let throttle = Throttle::default();
    let client = HttpClient::new(HttpOptions { throttle: throttle.clone(), agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
    for _ in 0..20 {
        let url = url(address, "/a/b?c=d");
        let answer = client.get(Ask { url: &url, accept: "text/plain", most: 5, may_be_private: true }).await.unwrap();
        assert_eq!((answer.status, answer.kind.as_str(), answer.length, answer.retry_after), (200, "text/plain", Some(5), None));
        assert!(answer.body.is_private());
        assert_eq!(answer.body.all().await.unwrap(), "hello");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    let Traffic { lan_up, lan_down, wan_up, wan_down } = throttle.traffic();
    assert!(lan_down >= 20 * 80 && lan_up >= 20 * 80 && (wan_up, wan_down) == (0, 0), "what goes over the wire is counted");
}

#[tokio::test]
async fn limits_of_bandwidth_hold() {
    let (address, _) = server(|_| ok(&"x".repeat(300_000))).await;
    let throttle = Throttle::default();
    throttle.set(crate::BandwidthLimits { lan_down: std::num::NonZeroU64::new(200_000), ..Default::default() });
    let client = HttpClient::new(HttpOptions { throttle, limits: limits(), ..HttpOptions::default() }).unwrap();
    let begun = Instant::now();
    assert_eq!(get(&client, &url(address, "/"), 300_000, true).await.map(|(_, body)| body.len()), Ok(300_000));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn requests_at_one_server_wait_in_line_beyond_the_bound() {
    let (address, connections) = server(|_| ok("x")).await;
    let client = client(HttpLimits { connections: 3, ..HttpLimits::default() });
    let url = url(address, "/");
    let all = (0..50).map(|_| get(&client, &url, 1, true));
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    assert!(connections.load(Ordering::Relaxed) <= 3, "{connections:?}");
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_costs_another_try() {
    // It says nothing of closing and does it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            head(&mut stream).await;
            stream.write_all(&ok("x").unwrap()).await.ok();
        }
    });
    let client = client(limits());
    for _ in 0..5 {
        assert_eq!(get(&client, &url(address, "/"), 1, true).await, Ok((200, "x".into())));
    }
}

#[tokio::test]
async fn bounds_hold_against_silence_floods_and_junk() {
    let client = client(limits());
    let body_of = |text: &'static str| async move {
        let (address, _) = server(move |_| Some(text.as_bytes().to_vec())).await;
        address
    };
    let endless = |head: &'static str, part: &'static [u8]| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    self::head(&mut stream).await;
                    stream.write_all(head.as_bytes()).await.ok();
                    while stream.write_all(part).await.is_ok() {}
                });
            }
        });
        address
    };
    let late = |what| HttpError::Late { what, limit: limits().stall };
    let (silent, _) = server(|_| None).await;
    assert_eq!(get(&client, &url(silent, "/"), 9, true).await, Err(late("answer")));
    let half = body_of("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel").await;
    assert_eq!(get(&client, &url(half, "/"), 9, true).await, Err(late("further byte")));
    let told = body_of("HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\nhel").await;
    assert_eq!(get(&client, &url(told, "/"), 9, true).await, Err(HttpError::TooLong { most: 9 }));
    let flood = endless("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096]).await;
    assert_eq!(get(&client, &url(flood, "/"), 100_000, true).await, Err(HttpError::TooLong { most: 100_000 }));
    let head = endless("HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n").await;
    assert!(matches!(get(&client, &url(head, "/"), 9, true).await, Err(HttpError::Broken(_))));
    let junk = body_of("SSH-2.0-OpenSSH\r\n\r\n").await;
    assert!(matches!(get(&client, &url(junk, "/"), 9, true).await, Err(HttpError::Broken(_))));
    let short = body_of("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhel").await;
    assert!(matches!(get(&client, &url(short, "/"), 9, true).await, Err(HttpError::Broken(_))));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(get(&client, &url(nobody, "/"), 9, true).await, Err(HttpError::Connect { .. })));
    let slow = HttpLimits { whole: Duration::from_millis(400), stall: Duration::from_secs(5), ..limits() };
    let half = body_of("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel").await;
    let whole = get(&self::client(slow), &url(half, "/"), 9, true).await;
    assert_eq!(whole, Err(HttpError::Late { what: "end of the answer", limit: slow.whole }));
}

#[tokio::test]
async fn redirects_are_followed_a_little_and_never_into_private_nets_for_strangers() {
    let (address, _) = server(|head| match head.split(' ').nth(1).unwrap_or_default() {
        "/one" => to("/two"),
        "/two" => to("three"),
        "/round" => to("/round"),
        "/file" => to("file:///etc/passwd"),
        "/nowhere" => to(""),
        "/named" => to("http://localhost:1/"),
        _ => ok("there"),
    })
    .await;
    let client = client(limits());
    assert_eq!(get(&client, &url(address, "/one"), 9, true).await, Ok((200, "there".into())));
    for path in ["/round", "/file", "/nowhere"] {
        assert!(matches!(get(&client, &url(address, path), 9, true).await, Err(HttpError::Redirect(_))), "{path}");
    }
    // Whoever is in a private net and was named by the user may send us to a neighbour; nobody else may.
    assert!(matches!(get(&client, &url(address, "/named"), 9, true).await, Err(HttpError::Connect { .. })));
    for text in [format!("http://{address}/"), format!("http://localhost:{}/", address.port()), "http://[::ffff:127.0.0.1]/".to_owned()] {
        let refused = get(&client, &Url::parse(&text).unwrap(), 9, false).await;
        assert!(matches!(refused, Err(HttpError::Private { .. })), "{text}: {refused:?}");
    }
}

#[tokio::test]
async fn a_server_in_the_world_must_prove_itself_by_an_authority_that_is_trusted() {
    let authority = rcgen::CertificateParams::new(Vec::new()).map(|mut params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
    });
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = authority.unwrap().self_signed(&authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &authority, &authority_key).unwrap();

    use futures_rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let provider = Arc::new(futures_rustls::rustls::crypto::ring::default_provider());
    let config = futures_rustls::rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap();
    let acceptor = futures_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream.compat()).await else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                    head.push(byte[0]);
                }
                stream.write_all(&ok("sealed").unwrap()).await.ok();
                stream.flush().await.ok();
                // Until the client has it.
                stream.read_exact(&mut byte).await.ok();
            });
        }
    });

    let authorities = Some(authority.pem().into_bytes());
    let trusting = HttpClient::new(HttpOptions { authorities, limits: limits(), ..HttpOptions::default() }).unwrap();
    let url = |host: &str| Url::parse(&format!("https://{host}:{port}/")).unwrap();
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(get(&trusting, &url(host), 9, true).await, Ok((200, "sealed".into())), "{host}");
    }
    let other = get(&client(limits()), &url("localhost"), 9, true).await;
    assert!(matches!(other, Err(HttpError::Tls { .. })), "nobody vouches for it: {other:?}");
    let wrong_name = get(&trusting, &url("localhost.localdomain"), 9, true).await;
    assert!(matches!(wrong_name, Err(HttpError::Tls { .. } | HttpError::Name { .. })), "{wrong_name:?}");
    for (pem, why) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")] {
        let refused = HttpClient::new(HttpOptions { authorities: Some(pem.as_bytes().to_vec()), ..HttpOptions::default() });
        assert!(matches!(&refused, Err(HttpError::Authorities(said)) if said.contains(why)), "{pem}: {refused:?}");
    }
}

#[test]
fn a_pause_is_told_in_seconds_or_by_a_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
    for (text, pause) in [
        ("120", Some(120)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
        ("Thu, 06 Nov 1980 08:49:37 GMT", Some(0)),
        ("soon", None),
        ("-1", None),
        ("99999999999999999999999", None),
    ] {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
        assert_eq!(retry_after(&headers, now), pause.map(Duration::from_secs), "{text}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}
