//! Wish against holding, as sorted lists.

use crate::order::byte_order;
use std::cmp::Ordering;
use std::iter::Peekable;
use types::Cid;

/// What to do about one CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Wanted and not held.
    Fetch(Cid),
    /// Held, ours and not wanted.
    LetGo(Cid),
    /// In the ledger, neither held nor wanted.
    Forget(Cid),
}

/// Compares three lists sorted by the CID's bytes; memory stays constant whatever their length. Lets go only of what
/// `ours` names: what is held beyond it belongs to somebody else.
pub fn difference(
    wanted: impl Iterator<Item = Cid>,
    held: impl Iterator<Item = Cid>,
    ours: impl Iterator<Item = Cid>,
) -> impl Iterator<Item = Op> {
    let (mut wanted, mut held, mut ours) = (wanted.peekable(), held.peekable(), ours.peekable());
    std::iter::from_fn(move || {
        loop {
            let cid = smallest([wanted.peek(), held.peek(), ours.peek()])?;
            match (takes(&mut wanted, &cid), takes(&mut held, &cid), takes(&mut ours, &cid)) {
                (true, false, _) => return Some(Op::Fetch(cid)),
                (false, true, true) => return Some(Op::LetGo(cid)),
                (false, false, true) => return Some(Op::Forget(cid)),
                (true, true, _) | (false, _, false) => {}
            }
        }
    })
}

fn smallest(heads: [Option<&Cid>; 3]) -> Option<Cid> {
    heads.into_iter().flatten().min_by(|a, b| byte_order(a, b)).copied()
}

fn takes(list: &mut Peekable<impl Iterator<Item = Cid>>, cid: &Cid) -> bool {
    list.next_if(|head| byte_order(head, cid) == Ordering::Equal).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cid;

    /// Letters are CIDs; `+` fetch, `-` let go, `~` forget.
    fn check(wanted: &str, held: &str, ours: &str, expected: &str) {
        let mut names: Vec<(Cid, char)> = ('a'..='z').map(|letter| (cid(letter as u64), letter)).collect();
        names.sort_by(|(a, _), (b, _)| byte_order(a, b));
        let sorted =
            |letters: &str| -> Vec<Cid> { names.iter().filter(|(_, letter)| letters.contains(*letter)).map(|(cid, _)| *cid).collect() };
        let name = |cid: &Cid| names.iter().find(|(other, _)| other == cid).map(|(_, letter)| *letter).expect("a letter");
        let mut found: Vec<String> = difference(sorted(wanted).into_iter(), sorted(held).into_iter(), sorted(ours).into_iter())
            .map(|op| match op {
                Op::Fetch(cid) => format!("+{}", name(&cid)),
                Op::LetGo(cid) => format!("-{}", name(&cid)),
                Op::Forget(cid) => format!("~{}", name(&cid)),
            })
            .collect();
        found.sort_by_key(|op| op.chars().nth(1));
        assert_eq!(found.concat(), expected, "{wanted} | {held} | {ours}");
    }

    #[test]
    fn new_pin() {
        check("abc", "ac", "ab", "+b");
    }
    #[test]
    fn stale_pin() {
        check("a", "abz", "ab", "-b"); // z is not ours
    }
    #[test]
    fn nothing_to_do() {
        check("ab", "ab", "ab", "");
        check("", "", "", "");
        check("ab", "ab", "", ""); // held on somebody else's account serves the wish
    }
    #[test]
    fn foreign_pins_are_untouched() {
        check("", "xyz", "", "");
    }
    #[test]
    fn everything_changes() {
        check("abc", "xyz", "xyz", "+a+b+c-x-y-z");
    }
    #[test]
    fn the_ledger_forgets_what_is_neither_wanted_nor_held() {
        check("a", "a", "ab", "~b");
    }
    #[test]
    fn ours_and_lost_is_fetched_again() {
        check("a", "", "a", "+a");
    }
}
