//! Messages between peers on real sockets.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::*;
use net::{Host, MessageLimits, Messages, Received, SendError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use types::PeerId;

const PROTOCOL: &str = "/pinfold/peer/1";

fn messages(host: &Host) -> (Messages, Received) {
    let limits = MessageLimits { message: 1 << 20, queued: 1000, queued_bytes: 8 << 20 };
    Messages::start(host, PROTOCOL, limits).unwrap()
}

async fn next(received: &mut Received) -> (PeerId, Vec<u8>) {
    tokio::time::timeout(Duration::from_secs(5), received.recv()).await.expect("a message").unwrap()
}

#[tokio::test]
async fn messages_arrive_in_order_with_their_sender() {
    let (first, second) = pair(options(1), options(2)).await;
    let ((to, _from_second), (_, mut received)) = (messages(&first), messages(&second));
    for number in 0..900u32 {
        to.send(second.id(), number.to_be_bytes().to_vec()).unwrap();
    }
    to.send(second.id(), vec![7; 1 << 20]).unwrap();
    for number in 0..900u32 {
        assert_eq!(next(&mut received).await, (first.id(), number.to_be_bytes().to_vec()));
    }
    assert_eq!(next(&mut received).await.1.len(), 1 << 20);
}

#[tokio::test]
async fn what_cannot_be_queued_is_an_error_at_once() {
    let (first, second) = pair(options(1), options(2)).await;
    let (to, _) = messages(&first);
    let (_other, _nobody_takes_them) = messages(&second);
    let stranger = PeerId::from_ed25519(&[9; 32]);
    assert_eq!(to.send(stranger, vec![1]), Err(SendError::NotConnected(stranger)));
    assert_eq!(to.send(second.id(), vec![0; (1 << 20) + 1]), Err(SendError::TooLong { length: (1 << 20) + 1, limit: 1 << 20 }));
    let full = (0..100_000).find_map(|_| to.send(second.id(), vec![0; 100_000]).err());
    assert_eq!(full, Some(SendError::Full(second.id())));
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_holds_the_sender_back_and_loses_nothing() {
    let (first, second) = pair(options(1), options(2)).await;
    let ((to, _), (_keep, mut received)) = (messages(&first), messages(&second));
    let sending = tokio::spawn(async move {
        for number in 0..3000u32 {
            let message = [&number.to_be_bytes()[..], &[0; 10_000]].concat();
            while let Err(error) = to.send(second.id(), message.clone()) {
                assert_eq!(error, SendError::Full(second.id()));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        second
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished());
    for number in 0..3000u32 {
        assert_eq!(next(&mut received).await.1[..4], number.to_be_bytes());
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn after_a_new_connection_only_new_messages_come() {
    let (first, second) = pair(options(1), options(2)).await;
    let ((to, _), (_keep, mut received)) = (messages(&first), messages(&second));
    to.send(second.id(), b"before".to_vec()).unwrap();
    assert_eq!(next(&mut received).await.1, b"before");
    first.disconnect(second.id()).await;
    wait_for("disconnected", || to.send(second.id(), b"meanwhile".to_vec()).is_err()).await;
    // What was taken just before the end of the connection is gone with it.
    wait_for("the other side saw it", || !second.is_connected(&first.id())).await;
    while received.try_recv().is_ok() {}
    first.connect(second.id(), &second.addresses()).await.unwrap();
    wait_for("taken again", || to.send(second.id(), b"after".to_vec()).is_ok()).await;
    assert_eq!(next(&mut received).await.1, b"after");
}

#[tokio::test]
async fn a_peer_without_the_protocol_is_named() {
    let (first, second) = pair(options(1), options(2)).await;
    let (to, _) = messages(&first);
    let refused = || to.send(second.id(), b"hello".to_vec()) == Err(SendError::Unsupported(second.id()));
    wait_for("the refusal is known", refused).await;
}

#[tokio::test]
async fn garbage_ends_its_stream_only() {
    let (first, second) = pair(options(1), options(2)).await;
    let (_keep, mut received) = messages(&second);
    let (mut stream, _) = first.open(second.id(), &[PROTOCOL]).await.unwrap();
    stream.write_all(b"\x80\x80\x80\x80\x08").await.unwrap();
    stream.flush().await.unwrap();
    let (to, _) = messages(&first);
    to.send(second.id(), b"good".to_vec()).unwrap();
    assert_eq!(next(&mut received).await, (first.id(), b"good".to_vec()));
}
