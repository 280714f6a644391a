//! Calls of Go's RPC: against bytes recorded from Go peers, between two hosts, and with callers that misbehave.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use net::gorpc::*;
use net::{Host, Stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::PeerId;
use wire::msgpack::{Scan, scan};
use wire::rpc::{ErrorKind, Response};

const DEADLINE: Duration = Duration::from_secs(5);

fn request(service: &str, method: &str) -> Request {
    Request::new(service, method)
}

/// Two connected hosts, the second of which serves `router`.
async fn serving<R: Router>(router: Arc<R>, limits: CallLimits) -> (Host, Host) {
    let (first, second) = pair(options(1), options(2)).await;
    let server = Server::accept(&second, router, limits).unwrap();
    tokio::spawn(server.run());
    (first, second)
}

/// Writes `bytes` as a call of its own and reads all that comes back.
async fn raw_call(host: &Host, peer: PeerId, bytes: &[u8], then_close: bool) -> Vec<u8> {
    let (mut stream, _) = host.open(peer, &[RPC_PROTOCOL]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    if then_close {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an end");
    answer
}

fn values_of(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let Scan::Complete(length) = scan(bytes, 1 << 24) else { panic!("not msgpack: {bytes:02x?}") };
        values.push(Bytes::copy_from_slice(&bytes[..length]));
        bytes = &bytes[length..];
    }
    values
}

mod recorded {
    use super::*;

    /// One exchange with a Go peer, cut into values.
    struct Exchange {
        name: String,
        by_go_server: bool,
        request: Request,
        arguments: Vec<Bytes>,
        request_bytes: Vec<u8>,
        answers: Vec<(Response, Bytes)>,
        response_bytes: Vec<u8>,
    }

    impl Exchange {
        fn is_stream(&self) -> bool {
            ["IDStream", "Peers", "Pins", "RecoverAllLocal", "StatusAll", "BlockStream"].contains(&self.request.method.as_str())
        }

        fn failure(&self) -> Option<&Response> {
            self.answers.iter().map(|(header, _)| header).find(|header| !header.is_ok())
        }
    }

    fn exchanges() -> Vec<Exchange> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/vectors/rpc.json");
        let all: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        all.iter().filter(|one| one["request_hex"] != "").map(exchange).collect()
    }

    fn exchange(one: &serde_json::Value) -> Exchange {
        let bytes = |key: &str| hex::decode(one[key].as_str().unwrap()).unwrap();
        let values = values_of(&bytes("request_hex"));
        let answers = values_of(&bytes("response_hex"));
        Exchange {
            name: one["name"].as_str().unwrap().to_owned(),
            by_go_server: one["direction"].as_str().unwrap().ends_with("Go server"),
            request: wire::rpc::decode(&values[0]).unwrap(),
            arguments: values[1..].to_vec(),
            request_bytes: bytes("request_hex"),
            answers: answers.chunks(2).map(|pair| (wire::rpc::decode(&pair[0]).unwrap(), pair[1].clone())).collect(),
            response_bytes: bytes("response_hex"),
        }
    }

    /// Says what the Go peer said.
    struct Replay(Exchange);

    impl Replay {
        fn outcome(&self) -> Result<Vec<&Bytes>, Failure> {
            match self.0.failure() {
                None => Ok(self.0.answers.iter().map(|(_, body)| body).collect()),
                Some(Response { error, kind: ErrorKind::Method, .. }) => Err(Failure::method(error)),
                Some(Response { error, .. }) => Err(Failure::argument(error)),
            }
        }
    }

    #[async_trait]
    impl Router for Replay {
        fn method(&self, request: &Request) -> Method {
            match (request.service.as_str(), request.method.as_str()) {
                ("NoSuch", _) => Method::UnknownService,
                (_, "NoSuch") => Method::UnknownMethod,
                _ if self.0.is_stream() => Method::Stream,
                _ => Method::Unary,
            }
        }

        fn authorise(&self, _: &PeerId, _: &Request) -> bool {
            self.0.failure().is_none_or(|failure| failure.kind != ErrorKind::NotAuthorised)
        }

        async fn unary(&self, _: PeerId, request: &Request, argument: Bytes) -> Result<Vec<u8>, Failure> {
            assert_eq!((request, &argument), (&self.0.request, &self.0.arguments[0]));
            Ok(self.outcome()?[0].to_vec())
        }

        async fn stream(&self, _: PeerId, _: &Request, arguments: &mut Arguments, replies: &mut Replies) -> Result<(), Failure> {
            let mut taken = Vec::new();
            while let Some(argument) = arguments.next().await? {
                taken.push(argument);
            }
            assert_eq!(taken, self.0.arguments);
            for reply in self.outcome()? {
                replies.send(reply).await?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_go_answered_is_answered_with_the_same_bytes() {
        let (first, second) = pair(options(1), options(2)).await;
        let mut checked = 0;
        for exchange in exchanges().into_iter().filter(|exchange| exchange.by_go_server) {
            let (name, mut expected) = (exchange.name.clone(), exchange.response_bytes.clone());
            // After an error Go writes the method's zero reply, ours is nil; nobody looks at it.
            if exchange.failure().is_some_and(|failure| failure.kind == ErrorKind::Method) {
                expected.truncate(expected.len() - 1);
                expected.push(0xc0);
            }
            let (request, closes) = (exchange.request_bytes.clone(), exchange.is_stream());
            // Takes the protocol over from the one before.
            let server = Server::accept(&second, Arc::new(Replay(exchange)), CallLimits::default()).unwrap();
            tokio::spawn(server.run());
            let answer = raw_call(&first, second.id(), &request, closes).await;
            assert_eq!(hex::encode(answer), hex::encode(expected), "{name}");
            checked += 1;
        }
        assert_eq!(checked, 36);
    }

    #[tokio::test]
    async fn calls_are_written_as_go_writes_them_and_its_answers_are_understood() {
        let limits = CallLimits::default();
        let (first, second) = pair(options(1), options(2)).await;
        let mut incoming = second.accept(&[RPC_PROTOCOL]).unwrap();
        let mut checked = 0;
        for exchange in exchanges() {
            let name = &exchange.name;
            let callee = async {
                let (_, _, mut stream) = incoming.next().await.unwrap();
                let mut request = vec![0; exchange.request_bytes.len()];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(hex::encode(request), hex::encode(&exchange.request_bytes), "{name}");
                stream.write_all(&exchange.response_bytes).await.unwrap();
                stream.shutdown().await.unwrap();
                stream
            };
            let arguments: Vec<&[u8]> = exchange.arguments.iter().map(|argument| argument.as_ref()).collect();
            let caller = async {
                if exchange.is_stream() {
                    call_collect(&first, second.id(), &exchange.request, &arguments, &limits, DEADLINE).await
                } else {
                    call_unary(&first, second.id(), &exchange.request, arguments[0], &limits, DEADLINE).await.map(|reply| vec![reply])
                }
            };
            let (_stream, outcome) = tokio::join!(callee, caller);
            let expected = match exchange.failure().cloned() {
                None => Ok(exchange.answers.iter().map(|(_, body)| body.clone()).collect()),
                Some(Response { error, kind, .. }) => Err(match kind {
                    ErrorKind::Method => CallError::Method(error),
                    ErrorKind::NotAuthorised => CallError::NotAuthorised(error),
                    _ if error.starts_with("rpc: can't find") => CallError::Unknown(error),
                    _ => CallError::Server(error),
                }),
            };
            assert_eq!(outcome, expected, "{name}");
            checked += 1;
        }
        assert_eq!(checked, 46);
    }
}

/// Methods of every temper; counts how many run.
#[derive(Default)]
struct Tempers {
    running: AtomicUsize,
    most: AtomicUsize,
}

struct Running<'a>(&'a Tempers);

impl Tempers {
    fn enter(&self) -> Running<'_> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        Running(self)
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Router for Tempers {
    fn method(&self, request: &Request) -> Method {
        match (request.service.as_str(), request.method.as_str()) {
            ("Test", "Echo" | "Never" | "Secret" | "Panic") => Method::Unary,
            ("Test", "EchoStream" | "Endless" | "Deaf" | "Half") => Method::Stream,
            ("Test", _) => Method::UnknownMethod,
            _ => Method::UnknownService,
        }
    }

    fn authorise(&self, _: &PeerId, request: &Request) -> bool {
        !["Secret", "Missing"].contains(&request.method.as_str())
    }

    async fn unary(&self, _: PeerId, request: &Request, argument: Bytes) -> Result<Vec<u8>, Failure> {
        let _running = self.enter();
        match request.method.as_str() {
            "Never" => std::future::pending().await,
            "Panic" => panic!("a method with a bug"),
            _ => Ok(argument.to_vec()),
        }
    }

    async fn stream(&self, _: PeerId, request: &Request, arguments: &mut Arguments, replies: &mut Replies) -> Result<(), Failure> {
        let _running = self.enter();
        match request.method.as_str() {
            "Endless" => loop {
                replies.send(&[0xa2, 1, 2]).await?;
            },
            "Deaf" => return Err(Failure::method("heard nothing")),
            "Half" => replies.send(&[0x07]).await?,
            _ => {}
        }
        while let Some(argument) = arguments.next().await? {
            replies.send(&argument).await?;
            replies.flush().await?;
        }
        if request.method == "Half" { Err(Failure::method("half way")) } else { Ok(()) }
    }
}

async fn tempers(limits: CallLimits) -> (Host, Host, Arc<Tempers>) {
    let tempers = Arc::new(Tempers::default());
    let (first, second) = serving(tempers.clone(), limits).await;
    (first, second, tempers)
}

async fn echo(host: &Host, peer: PeerId) -> Result<Bytes, CallError> {
    call_unary(host, peer, &request("Test", "Echo"), &[0xa1, 9], &CallLimits::default(), DEADLINE).await
}

#[tokio::test]
async fn arguments_and_replies_interleave() {
    let (first, second, _) = tempers(CallLimits::default()).await;
    let (mut sink, mut replies) = call_stream(&first, second.id(), &request("Test", "EchoStream"), &CallLimits::default()).await.unwrap();
    for number in 0..100u8 {
        let value = wire::rpc::encode(&wire::rpc::Version { version: format!("{number}") });
        sink.send(&value).await.unwrap();
        assert_eq!(replies.next().await.unwrap().unwrap(), value);
    }
    sink.finish().await.unwrap();
    assert_eq!(replies.next().await, Ok(None));
}

#[tokio::test]
async fn long_values_pass_both_ways() {
    let (first, second, _) = tempers(CallLimits::default()).await;
    let long = wire::rpc::encode(&wire::rpc::BlockWithMeta { data: vec![7; 2 << 20], ..Default::default() });
    let limits = CallLimits::default();
    assert_eq!(call_unary(&first, second.id(), &request("Test", "Echo"), &long, &limits, DEADLINE).await.unwrap(), long);
    let both: [&[u8]; 2] = [&long, &long];
    let replies = call_collect(&first, second.id(), &request("Test", "EchoStream"), &both, &limits, DEADLINE).await.unwrap();
    assert_eq!(replies, both);
    let short = CallLimits { value_bytes: 1 << 20, ..limits };
    let refused = call_unary(&first, second.id(), &request("Test", "Echo"), &long, &short, DEADLINE).await;
    assert!(matches!(refused, Err(CallError::Broken(_))), "{refused:?}");
}

#[tokio::test]
async fn refusals_say_why() {
    let (first, second, _) = tempers(CallLimits::default()).await;
    let limits = CallLimits::default();
    for (service, method, expected) in [
        ("Test", "Secret", CallError::NotAuthorised("client does not have permissions to call Test.Secret".to_owned())),
        // Unknown before the policy is asked.
        ("Test", "Missing", CallError::Unknown("rpc: can't find method Missing".to_owned())),
        ("Other", "Echo", CallError::Unknown("rpc: can't find service Other".to_owned())),
    ] {
        let refused = call_unary(&first, second.id(), &request(service, method), &[0xc0], &limits, DEADLINE).await;
        assert_eq!(refused, Err(expected));
    }
    let arguments: Vec<&[u8]> = vec![&[0xa1, 9]; 10];
    let refused = call_collect(&first, second.id(), &request("Test", "Deaf"), &arguments, &limits, DEADLINE).await;
    assert_eq!(refused, Err(CallError::Method("heard nothing".to_owned())));
    let (sink, mut replies) = call_stream(&first, second.id(), &request("Test", "Half"), &limits).await.unwrap();
    sink.finish().await.unwrap();
    assert_eq!(replies.next().await.unwrap().unwrap(), [0x07][..]);
    assert_eq!(replies.next().await, Err(CallError::Method("half way".to_owned())));
}

#[tokio::test]
async fn calls_to_hosts_without_the_protocol_fail_at_once() {
    let (first, second) = pair(options(1), options(2)).await;
    assert!(matches!(echo(&first, second.id()).await, Err(CallError::Open(_))));
}

#[tokio::test]
async fn a_caller_that_gives_up_ends_the_method() {
    let (first, second, tempers) = tempers(CallLimits::default()).await;
    let never = request("Test", "Never");
    let limits = CallLimits::default();
    let call = call_unary(&first, second.id(), &never, &[0xc0], &limits, Duration::from_millis(300));
    assert_eq!(call.await, Err(CallError::TimedOut));
    wait_for("the method ended", || tempers.running() == 0).await;
    let (sink, mut replies) = call_stream(&first, second.id(), &request("Test", "Endless"), &limits).await.unwrap();
    assert!(replies.next().await.unwrap().is_some());
    assert_eq!(tempers.running(), 1);
    drop((sink, replies));
    wait_for("the stream ended", || tempers.running() == 0).await;
    assert!(echo(&first, second.id()).await.is_ok());
}

#[tokio::test]
async fn a_caller_that_closes_its_side_still_gets_the_answer() {
    let (first, second, _) = tempers(CallLimits::default()).await;
    let call = [wire::rpc::encode(&request("Test", "Echo")), vec![0x05]].concat();
    for closes in [true, false] {
        let answer = values_of(&raw_call(&first, second.id(), &call, closes).await);
        assert_eq!(answer[1], [0x05][..]);
    }
}

#[tokio::test]
async fn garbage_and_half_requests_are_refused_and_cost_no_slot() {
    let limits =
        CallLimits { request: Duration::from_millis(200), idle: Duration::from_millis(200), value_bytes: 1000, ..Default::default() };
    let (first, second, tempers) = tempers(limits).await;
    let echo_header = wire::rpc::encode(&request("Test", "Echo"));
    let with = |bytes: &[u8]| [&echo_header, bytes].concat();
    let long_name = wire::rpc::encode(&request(&"x".repeat(2000), "Echo"));
    for (what, bytes) in [
        ("nothing", vec![]),
        ("not msgpack", vec![0xc1; 100]),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("half a header", echo_header[..5].to_vec()),
        ("a long header", long_name),
        ("no argument", echo_header.clone()),
        ("half an argument", with(&[0xa9, 1])),
        ("a long argument", with(&[0xdb, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3])),
        ("a deep argument", with(&[0x91; 2000])),
    ] {
        for closes in [true, false] {
            let answer = raw_call(&first, second.id(), &bytes, closes).await;
            // Whoever got as far as a request is told; the others are not.
            let told = values_of(&answer).first().map(|header| wire::rpc::decode::<Response>(header).unwrap());
            assert!(told.is_none_or(|header| !header.is_ok()), "{what}");
        }
    }
    wait_for("nothing runs", || tempers.running() == 0).await;
    assert!(echo(&first, second.id()).await.is_ok());
}

#[tokio::test]
async fn endless_replies_are_cut_off() {
    let callee = CallLimits { idle: Duration::from_millis(300), ..CallLimits::default() };
    let (first, second, tempers) = tempers(callee).await;
    let limits = CallLimits { replies: 1000, ..CallLimits::default() };
    let outcome = call_collect(&first, second.id(), &request("Test", "Endless"), &[], &limits, DEADLINE).await;
    assert_eq!(outcome, Err(CallError::Broken("too many replies".to_owned())));
    wait_for("the method ended", || tempers.running() == 0).await;
}

#[tokio::test]
async fn callers_that_take_nothing_and_send_nothing_are_let_go() {
    let limits = CallLimits { idle: Duration::from_millis(300), ..CallLimits::default() };
    let (first, second, tempers) = tempers(limits).await;
    let mut kept: Vec<Stream> = Vec::new();
    for method in ["Endless", "EchoStream"] {
        let (mut stream, _) = first.open(second.id(), &[RPC_PROTOCOL]).await.unwrap();
        stream.write_all(&wire::rpc::encode(&request("Test", method))).await.unwrap();
        stream.flush().await.unwrap();
        kept.push(stream);
    }
    wait_for("both run", || tempers.most.load(Ordering::SeqCst) == 2).await;
    wait_for("both were ended", || tempers.running() == 0).await;
}

#[tokio::test]
async fn one_peer_gets_so_many_calls_at_once_and_a_bug_gives_its_place_back() {
    let limits = CallLimits { calls_per_peer: 3, ..CallLimits::default() };
    let (first, second, tempers) = tempers(limits).await;
    let client = CallLimits::default();
    for _ in 0..4 {
        let outcome = call_unary(&first, second.id(), &request("Test", "Panic"), &[0xc0], &client, DEADLINE).await;
        assert!(matches!(outcome, Err(CallError::Broken(_))), "{outcome:?}");
    }
    let never = request("Test", "Never");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (first, never, peer) = (first.clone(), never.clone(), second.id());
        waiting.spawn(async move { call_unary(&first, peer, &never, &[0xc0], &CallLimits::default(), DEADLINE).await });
    }
    wait_for("three run", || tempers.running() == 3).await;
    assert!(matches!(echo(&first, second.id()).await, Err(CallError::Broken(_))));
    waiting.shutdown().await;
    wait_for("none runs", || tempers.running() == 0).await;
    assert!(echo(&first, second.id()).await.is_ok());
    assert_eq!(tempers.most.load(Ordering::SeqCst), 3);
}
