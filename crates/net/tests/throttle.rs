//! Limits of bandwidth on real sockets. How exactly a rate is kept is arithmetic (`throttle::bucket`) and a figure of
//! `cargo xtask bench bandwidth`; here: that all bytes of both transports pass the limits, and that a lifted limit is lifted.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::*;
use net::{BandwidthLimits, Host, Incoming, Throttle};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

const PROTOCOL: &str = "/test/bytes/1";

/// Sends so many bytes, and where they arrive: it listens before, since who does not listen yet does not speak the protocol.
fn begin(from: &Host, to: &Host, bytes: usize) -> (Incoming, JoinHandle<()>) {
    let incoming = to.accept(&[PROTOCOL]).unwrap();
    let (from, to) = (from.clone(), to.id());
    let sending = tokio::spawn(async move {
        let (mut stream, _) = from.open(to, &[PROTOCOL]).await.unwrap();
        stream.write_all(&vec![7; bytes]).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    (incoming, sending)
}

/// Bytes received, at most until `deadline`.
async fn take(mut incoming: Incoming, bytes: usize, deadline: Duration) -> usize {
    let end = Instant::now() + deadline;
    let mut got = 0;
    let (_, _, mut stream) = tokio::time::timeout_at(end.into(), incoming.next()).await.unwrap().unwrap();
    let mut buffer = vec![0; 1 << 16];
    while got < bytes {
        match tokio::time::timeout_at(end.into(), stream.read(&mut buffer)).await {
            Ok(Ok(0)) | Err(_) => break,
            Ok(Ok(count)) => got += count,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    got
}

async fn check(listen: &str, limits: BandwidthLimits, is_sender: bool) {
    let throttle = Throttle::default();
    throttle.set(limits);
    let limited = |mut options: net::HostOptions, is_limited: bool| {
        options.listen = vec![listen.to_owned()];
        if is_limited {
            options.throttle = throttle.clone();
        }
        options
    };
    let (from, to) = pair(limited(options(1), is_sender), limited(options(2), !is_sender)).await;
    const BYTES: usize = 8_000_000;
    let (incoming, sending) = begin(&from, &to, BYTES);
    let seconds = 3;
    let got = take(incoming, BYTES, Duration::from_secs(seconds)).await;
    let most = 1_000_000 * seconds as usize * 12 / 10;
    assert!(got <= most, "{listen} {limits:?}: {got} bytes in {seconds} s");
    assert!(got > 0, "{listen} {limits:?}: nothing came");
    let moved = throttle.traffic();
    assert!(moved.lan_up + moved.lan_down >= got as u64, "everything passes the limits: {moved:?}");
    assert_eq!((moved.wan_up, moved.wan_down), (0, 0), "loopback is the local net");
    sending.abort();
    from.shutdown().await;
    to.shutdown().await;
}

fn rate() -> Option<NonZeroU64> {
    NonZeroU64::new(1_000_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_keeps_its_limit_over_tcp_and_quic() {
    for listen in [TCP, "/ip4/127.0.0.1/udp/0/quic-v1"] {
        check(listen, BandwidthLimits { lan_up: rate(), ..BandwidthLimits::default() }, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_keeps_its_limit_over_tcp_and_quic() {
    for listen in [TCP, "/ip4/127.0.0.1/udp/0/quic-v1"] {
        check(listen, BandwidthLimits { lan_down: rate(), ..BandwidthLimits::default() }, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lifted_limit_is_lifted_for_open_streams_and_one_for_the_other_net_never_stood() {
    let throttle = Throttle::default();
    throttle.set(BandwidthLimits { lan_up: NonZeroU64::new(10_000), wan_up: NonZeroU64::new(1), ..BandwidthLimits::default() });
    let (from, to) = pair(net::HostOptions { throttle: throttle.clone(), ..options(1) }, options(2)).await;
    const BYTES: usize = 8_000_000;
    let (incoming, sending) = begin(&from, &to, BYTES);
    let lift = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        throttle.set(BandwidthLimits { wan_up: NonZeroU64::new(1), ..BandwidthLimits::default() });
    };
    // At 10 kB/s it would take 800 seconds.
    let (got, ()) = tokio::join!(take(incoming, BYTES, Duration::from_secs(60)), lift);
    assert_eq!(got, BYTES);
    sending.await.unwrap();
}
