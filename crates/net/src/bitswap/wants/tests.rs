//! Scripts: what happens, and what is said to whom.

use super::peer::WINDOW_FIRST;
use super::*;
use std::time::Duration;
use wire::bitswap::WantKind;

struct Script {
    wants: Wants,
    now: Instant,
}

fn cid(number: u8) -> Cid {
    Cid::new_v1(0x55, Multihash::wrap(0x12, &[number; 32]).unwrap())
}

fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

impl Script {
    /// So many peers are connected; session 1 has these of them as providers.
    fn new(peers: u8, providers: &[u8]) -> Script {
        let mut script = Script { wants: Wants::new(BitswapLimits::default()), now: Instant::now() };
        for number in 1..=peers {
            script.wants.connected(peer(number), script.now);
        }
        script.name(providers);
        script
    }

    fn name(&mut self, providers: &[u8]) {
        let providers: Vec<PeerId> = providers.iter().map(|number| peer(*number)).collect();
        self.wants.providers(1, &providers, self.now);
    }

    fn want(&mut self, number: u8) {
        self.wants.add(1, cid(number), self.now);
    }

    fn block(&mut self, from: u8, number: u8) -> usize {
        self.wants.block(peer(from), cid(number).hash(), 100, self.now).len()
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.now += Duration::from_millis(250);
            self.wants.wake(self.now);
        }
    }

    /// Everything to be sent, as text: `1:block 7` is "block 7 is asked of peer 1".
    fn said(&mut self) -> Vec<String> {
        self.wants.take_dirty();
        let mut all = Vec::new();
        for number in 1..=9 {
            for want in self.wants.outgoing(&peer(number), 1000) {
                let what = match (want.is_cancel, want.kind) {
                    (true, _) => "cancel",
                    (_, WantKind::Block) => "block",
                    (_, WantKind::Have) => "have",
                };
                all.push(format!("{number}:{what} {}", want.cid.hash().digest()[0]));
            }
        }
        all
    }

    fn check(&mut self, expected: &[&str]) {
        assert_eq!(self.said(), expected);
    }

    fn failed(&mut self) -> Vec<Failure> {
        self.wants.take_failures().into_iter().map(|(_, failure)| failure).collect()
    }
}

#[test]
fn a_named_provider_is_asked_for_the_block_and_nobody_else() {
    let mut script = Script::new(3, &[2]);
    script.want(7);
    script.check(&["2:block 7"]);
    assert_eq!(script.block(2, 7), 1);
    script.check(&[]);
    assert!(script.wants.is_empty());
}

#[test]
fn what_a_peer_owes_is_asked_of_it_again_when_it_may_have_lost_it() {
    let mut script = Script::new(3, &[2]);
    script.want(7);
    script.check(&["2:block 7"]);
    let now = script.now;
    script.wants.ask_again(&peer(2), now);
    script.wants.ask_again(&peer(3), now);
    script.check(&["2:block 7"]);
    assert_eq!((script.block(2, 7), script.failed().len()), (1, 0));
    script.wants.ask_again(&peer(2), now);
    script.check(&[]);

    let mut script = Script::new(2, &[]);
    script.want(8);
    script.check(&["1:have 8", "2:have 8"]);
    let now = script.now;
    script.wants.ask_again(&peer(1), now);
    script.check(&["1:have 8"]);
}

#[test]
fn two_providers_share_the_work_without_asking_twice() {
    let mut script = Script::new(2, &[1, 2]);
    (0..40).for_each(|number| script.want(number));
    let said = script.said();
    assert_eq!(said.len(), 40, "each block is asked of one");
    assert_eq!(said.iter().filter(|line| line.starts_with("1:")).count(), 20);
}

#[test]
fn a_no_moves_on_and_the_last_no_is_not_found() {
    let mut script = Script::new(3, &[1, 2]);
    script.want(7);
    script.check(&["1:block 7"]);
    script.wants.dont_have(peer(1), &cid(7), script.now);
    script.check(&["2:block 7"]);
    script.wants.dont_have(peer(2), &cid(7), script.now);
    script.check(&["3:have 7"]);
    script.wants.dont_have(peer(3), &cid(7), script.now);
    assert_eq!(script.failed(), [Failure::NotFound { asked: 3 }]);
    script.check(&["1:cancel 7", "2:cancel 7", "3:cancel 7"]);
}

#[test]
fn without_providers_everybody_is_asked_and_who_has_it_is_asked_first_next_time() {
    let mut script = Script::new(3, &[]);
    script.want(7);
    script.check(&["1:have 7", "2:have 7", "3:have 7"]);
    script.wants.dont_have(peer(1), &cid(7), script.now);
    script.wants.have(peer(3), &cid(7), script.now);
    script.wants.have(peer(2), &cid(7), script.now);
    script.check(&["3:block 7"]);
    script.block(3, 7);
    script.check(&["1:cancel 7", "2:cancel 7"]);
    script.want(8);
    let said = script.said();
    assert!(said == ["2:block 8"] || said == ["3:block 8"], "{said:?}");
}

#[test]
fn nobody_to_ask_is_not_found_at_once() {
    let mut script = Script::new(0, &[]);
    script.want(7);
    assert_eq!(script.failed(), [Failure::NotFound { asked: 0 }]);
}

#[test]
fn a_provider_that_is_away_gets_a_little_time() {
    let mut script = Script::new(0, &[1]);
    script.want(7);
    script.pass(1);
    assert_eq!(script.failed(), []);
    script.wants.connected(peer(1), script.now);
    script.check(&["1:block 7"]);
    script.wants.disconnected(&peer(1), script.now);
    script.pass(4);
    assert_eq!(script.failed(), [Failure::NotFound { asked: 0 }]);
}

#[test]
fn a_lost_connection_moves_its_wants_to_others() {
    let mut script = Script::new(2, &[1, 2]);
    script.want(7);
    script.check(&["1:block 7"]);
    script.wants.disconnected(&peer(1), script.now);
    script.check(&["2:block 7"]);
    script.wants.connected(peer(1), script.now);
    script.check(&[]);
}

#[test]
fn a_silent_peer_loses_its_wants_when_there_is_another() {
    let mut script = Script::new(2, &[1, 2]);
    script.want(7);
    script.check(&["1:block 7"]);
    script.pass(4);
    script.check(&[]);
    script.pass(2);
    script.check(&["1:cancel 7", "2:block 7"]);
    // It comes late, but it comes.
    assert_eq!(script.block(1, 7), 1);
    script.check(&["2:cancel 7"]);
}

#[test]
fn the_only_provider_gets_patience_while_others_are_asked() {
    let mut script = Script::new(2, &[1]);
    script.want(7);
    script.check(&["1:block 7"]);
    script.pass(6);
    script.check(&["2:have 7"]);
    script.wants.dont_have(peer(2), &cid(7), script.now);
    script.pass(20);
    assert_eq!(script.failed(), []);
    script.pass(6);
    assert_eq!(script.failed(), [Failure::TimedOut]);
}

#[test]
fn a_peer_that_sends_other_blocks_is_slow_not_silent() {
    let mut script = Script::new(2, &[1]);
    (0..30).for_each(|number| script.want(number));
    script.said();
    script.name(&[2]);
    for number in 0..8 {
        script.pass(4);
        assert_eq!(script.block(1, number), 1);
    }
    assert_eq!(script.said(), Vec::<String>::new());
}

#[test]
fn a_slow_line_is_no_reason_to_give_up_while_something_comes() {
    let mut script = Script::new(1, &[1]);
    script.want(7);
    script.said();
    for _ in 0..100 {
        script.pass(4);
        script.wants.heard(&peer(1), script.now);
    }
    assert_eq!(script.failed(), []);
    assert_eq!(script.block(1, 7), 1);
}

#[test]
fn a_block_that_is_passed_over_again_and_again_is_asked_of_others() {
    let mut script = Script::new(1, &[1]);
    script.want(255);
    script.said();
    for round in 0..=SKIPPED_MAX {
        script.want((round % 250) as u8);
        assert_eq!(script.block(1, (round % 250) as u8), 1);
    }
    script.said();
    script.wants.connected(peer(2), script.now);
    script.pass(1);
    script.check(&["1:cancel 255", "2:have 255"]);
}

#[test]
fn a_block_from_elsewhere_ends_the_want() {
    let mut script = Script::new(1, &[1]);
    script.want(7);
    script.check(&["1:block 7"]);
    script.wants.settle(&cid(7), script.now);
    script.check(&["1:cancel 7"]);
    assert!(script.wants.is_empty());
}

#[test]
fn a_peer_gets_no_more_wants_than_its_window() {
    let mut script = Script::new(1, &[1]);
    (0..100).for_each(|number| script.want(number));
    assert_eq!(script.said().len(), WINDOW_FIRST);
    for number in 0..20 {
        script.block(1, number);
    }
    // One for each delivered, and one more for each: it grows.
    assert_eq!(script.said().len(), 40);
    script.pass(1);
    assert_eq!(script.said().len(), 0);
}

#[test]
fn a_dropped_fetch_is_cancelled_only_when_it_was_sent_and_nobody_else_waits() {
    let mut script = Script::new(1, &[1]);
    script.want(7);
    script.wants.remove(1, &cid(7), script.now);
    script.check(&[]);
    script.want(8);
    script.want(8);
    script.check(&["1:block 8"]);
    script.wants.remove(1, &cid(8), script.now);
    script.check(&[]);
    script.wants.remove(1, &cid(8), script.now);
    script.check(&["1:cancel 8"]);
}

#[test]
fn unasked_answers_change_nothing() {
    let mut script = Script::new(2, &[1]);
    script.want(7);
    script.said();
    script.wants.have(peer(2), &cid(7), script.now);
    script.wants.dont_have(peer(2), &cid(7), script.now);
    script.wants.have(peer(2), &cid(9), script.now);
    script.check(&[]);
    assert_eq!(script.block(2, 9), 0);
    // A good block is taken from whomever.
    assert_eq!(script.block(2, 7), 1);
    script.check(&["1:cancel 7"]);
}

#[test]
fn a_peer_without_bitswap_is_passed_over() {
    let mut script = Script::new(2, &[1]);
    script.want(7);
    script.said();
    script.wants.unreachable(&peer(1), false, script.now);
    script.check(&["2:have 7"]);
    script.want(8);
    script.check(&["2:have 8"]);
}

#[test]
fn a_block_serves_both_versions_of_its_cid() {
    let mut script = Script::new(1, &[1]);
    let hash = *cid(7).hash();
    let (v0, v1) = (Cid::new_v0(hash).unwrap(), Cid::new_v1(0x70, hash));
    script.wants.add(1, v0, script.now);
    script.wants.add(1, v1, script.now);
    script.said();
    assert_eq!(script.wants.block(peer(1), &hash, 10, script.now), [v0, v1]);
    assert!(script.wants.is_empty());
}
