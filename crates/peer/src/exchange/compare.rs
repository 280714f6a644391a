//! Which records only one of two peers has: answers to ranges (`wire::reconcile`), from sorted names alone.
//!
//! Who asks sends how all its names look together. A range that looks otherwise is split by whoever sees that, until it has few names,
//! which are then said. The asked one keeps nothing between two questions; the asker learns both sides of each difference.

use wire::reconcile::{Content, RANGES_MAX, Range, RecordName, bound_between, fingerprint, range_bytes};

/// A range with so few names is said in full instead of split.
const FEW: usize = 24;
/// Parts of a range that looks otherwise.
const PARTS: usize = 16;
/// A message takes no further range after so many bytes; what follows is looked at with the next one.
const MESSAGE_BYTES: usize = 256 << 10;
/// Names said in one range.
const NAMES_MOST: usize = 8_192;

/// Names of records, rising.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<RecordName>);

/// What the asker knows after an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// What is to be asked next; empty when everything is known.
    pub ask: Vec<Range>,
    /// The other one lacks these.
    pub only_here: Vec<RecordName>,
    /// These are to be had there.
    pub only_there: Vec<RecordName>,
}

impl Names {
    /// In any order, each once.
    pub fn new(mut names: Vec<RecordName>) -> Names {
        names.sort_unstable();
        names.dedup();
        Names(names)
    }

    /// The first question.
    pub fn first(&self) -> Vec<Range> {
        let all = &self.0[..];
        // Who has nothing says so at once.
        let content = if all.is_empty() { Content::Names(Vec::new()) } else { Content::Fingerprint(fingerprint(all)) };
        vec![Range { end: None, content }]
    }

    /// The answer to a question.
    pub fn answer(&self, asked: &[Range]) -> Vec<Range> {
        let mut answer = Answer::default();
        let mut begin = None;
        for range in asked {
            let own = self.within(begin, range.end);
            if answer.is_full() {
                return answer.rest_of(self.within(begin, None));
            }
            match &range.content {
                Content::Names(theirs) if theirs != own => answer.say(own, range.end),
                Content::Fingerprint(theirs) if *theirs != fingerprint(own) => answer.split(own, range.end),
                Content::Names(_) | Content::Fingerprint(_) | Content::Same => answer.same(range.end),
            }
            begin = range.end;
        }
        answer.ranges
    }

    /// What follows for the asker from an answer.
    pub fn compare(&self, answered: &[Range]) -> Compared {
        let mut compared = Compared::default();
        let mut ask = Answer::default();
        let mut begin = None;
        for range in answered {
            let own = self.within(begin, range.end);
            if ask.is_full() {
                compared.ask = ask.rest_of(self.within(begin, None));
                return compared;
            }
            match &range.content {
                Content::Names(theirs) => {
                    compared.only_here.extend(own.iter().filter(|name| theirs.binary_search(name).is_err()));
                    compared.only_there.extend(theirs.iter().filter(|name| own.binary_search(name).is_err()));
                    ask.same(range.end);
                }
                Content::Fingerprint(theirs) if *theirs != fingerprint(own) => ask.split(own, range.end),
                Content::Fingerprint(_) | Content::Same => ask.same(range.end),
            }
            begin = range.end;
        }
        compared.ask = ask.ranges;
        if compared.ask.iter().all(|range| range.content == Content::Same) {
            compared.ask.clear();
        }
        compared
    }

    fn within(&self, begin: Option<RecordName>, end: Option<RecordName>) -> &[RecordName] {
        let from = begin.map_or(0, |begin| self.0.partition_point(|name| *name < begin));
        let to = end.map_or(self.0.len(), |end| self.0.partition_point(|name| *name < end));
        self.0.get(from..to).unwrap_or_default()
    }
}

/// A message that is being made.
#[derive(Default)]
struct Answer {
    ranges: Vec<Range>,
    bytes: usize,
}

impl Answer {
    fn is_full(&self) -> bool {
        self.bytes >= MESSAGE_BYTES || self.ranges.len() + PARTS + 1 >= RANGES_MAX
    }

    fn push(&mut self, end: Option<RecordName>, content: Content) {
        self.bytes += range_bytes(&content);
        self.ranges.push(Range { end, content });
    }

    fn same(&mut self, end: Option<RecordName>) {
        match self.ranges.last_mut() {
            Some(last) if last.content == Content::Same => last.end = end,
            _ => self.push(end, Content::Same),
        }
    }

    /// Says the names; of many the first ones, and how the others look.
    fn say(&mut self, own: &[RecordName], end: Option<RecordName>) {
        let Some((first, rest)) = own.split_at_checked(NAMES_MOST).filter(|(_, rest)| !rest.is_empty()) else {
            return self.push(end, Content::Names(own.to_vec()));
        };
        let bound = bound_between(&first[first.len() - 1], &rest[0]);
        self.push(Some(bound), Content::Names(first.to_vec()));
        self.push(end, Content::Fingerprint(fingerprint(rest)));
    }

    fn split(&mut self, own: &[RecordName], end: Option<RecordName>) {
        if own.len() <= FEW {
            return self.push(end, Content::Names(own.to_vec()));
        }
        let mut parts = own.chunks(own.len().div_ceil(PARTS)).peekable();
        while let Some(part) = parts.next() {
            let end = match (part.last(), parts.peek().and_then(|next| next.first())) {
                (Some(last), Some(next)) => Some(bound_between(last, next)),
                _ => end,
            };
            self.push(end, Content::Fingerprint(fingerprint(part)));
        }
    }

    /// Everything from here on is looked at later.
    fn rest_of(mut self, own: &[RecordName]) -> Vec<Range> {
        self.push(None, Content::Fingerprint(fingerprint(own)));
        self.ranges
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use wire::reconcile::{Exchange, LONGEST, decode, encode};

    /// Names that look as hashes do.
    pub fn names(numbers: impl IntoIterator<Item = u64>) -> Vec<RecordName> {
        numbers.into_iter().map(|number| wire::reconcile::name_of(&number.to_be_bytes())).collect()
    }

    /// What the questions and answers cost.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub struct Cost {
        pub bytes: usize,
        pub turns: usize,
    }

    /// All questions until the asker knows everything.
    pub fn run(asker: &Names, asked: &Names) -> (Compared, Cost) {
        let mut cost = Cost::default();
        let mut found = Compared { ask: asker.first(), ..Compared::default() };
        while !found.ask.is_empty() {
            let question = passed(std::mem::take(&mut found.ask), &mut cost);
            let answer = passed(asked.answer(&question), &mut cost);
            let Compared { ask, only_here, only_there } = asker.compare(&answer);
            found.ask = ask;
            found.only_here.extend(only_here);
            found.only_there.extend(only_there);
            cost.turns += 1;
            assert!(cost.turns < 100, "it comes to an end");
        }
        (found, cost)
    }

    fn passed(ranges: Vec<Range>, cost: &mut Cost) -> Vec<Range> {
        let bytes = encode(&Exchange::Ranges(ranges.clone()));
        assert!(bytes.len() <= LONGEST, "{}", bytes.len());
        cost.bytes += bytes.len();
        assert_eq!(decode(&bytes), Ok(Exchange::Ranges(ranges.clone())));
        ranges
    }

    fn check(asker: &[RecordName], asked: &[RecordName]) -> Cost {
        let (asker_set, asked_set): (BTreeSet<_>, BTreeSet<_>) = (asker.iter().collect(), asked.iter().collect());
        let (found, cost) = run(&Names::new(asker.to_vec()), &Names::new(asked.to_vec()));
        let found_here: BTreeSet<_> = found.only_here.iter().collect();
        let found_there: BTreeSet<_> = found.only_there.iter().collect();
        assert_eq!((found_here.len(), found_there.len()), (found.only_here.len(), found.only_there.len()), "each once");
        assert_eq!(found_here, asker_set.difference(&asked_set).copied().collect());
        assert_eq!(found_there, asked_set.difference(&asker_set).copied().collect());
        cost
    }

    #[test]
    fn differences_are_found_on_both_sides() {
        let all = names(0..3_000);
        let some = |keep: &dyn Fn(usize) -> bool| -> Vec<RecordName> {
            all.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, name)| *name).collect()
        };
        let sets: Vec<Vec<RecordName>> = vec![
            Vec::new(),
            some(&|index| index < 1),
            some(&|index| index < FEW),
            some(&|index| index < FEW + 1),
            some(&|index| index != 1_234),
            some(&|index| index % 2 == 0),
            some(&|index| index % 2 == 1),
            some(&|index| index % 97 != 0),
            all.clone(),
        ];
        for asker in &sets {
            for asked in &sets {
                check(asker, asked);
            }
        }
    }

    #[test]
    fn the_same_costs_one_small_message_each_way() {
        let all = names(0..4_096);
        assert_eq!(check(&all, &all), Cost { bytes: 24, turns: 1 });
        assert_eq!(check(&[], &[]).turns, 1);
    }

    #[test]
    fn one_difference_among_many_costs_little() {
        let all = names(0..20_000);
        let cost = check(&all[1..], &all);
        assert!(cost.bytes < 3_000 && cost.turns <= 4, "{cost:?}");
    }

    #[test]
    fn large_differences_come_in_messages_within_their_bound() {
        let (one, other) = (names(0..40_000), names(40_000..80_000));
        check(&one, &other);
        check(&[], &other);
        check(&one, &[]);
    }

    #[test]
    fn any_question_is_answered_and_any_answer_taken() {
        let names = Names::new(names(0..1_000));
        let odd = [
            Vec::new(),
            vec![Range { end: Some([1; 16]), content: Content::Names(Vec::new()) }],
            vec![Range { end: Some([0; 16]), content: Content::Fingerprint([0; 16]) }],
            (0..RANGES_MAX as u32)
                .map(|number| {
                    let mut end = [0; 16];
                    end[..4].copy_from_slice(&(number + 1).to_be_bytes());
                    Range { end: Some(end), content: Content::Fingerprint([9; 16]) }
                })
                .collect(),
        ];
        for ranges in odd {
            assert!(names.answer(&ranges).len() <= RANGES_MAX);
            assert!(names.compare(&ranges).ask.len() <= RANGES_MAX);
        }
    }
}
