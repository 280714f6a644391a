//! When memtables are written to tables although they are not full: a peer that took a large pinset and has nothing to do any more would keep
//! some hundred megabytes for writes that do not come, and the next start after a crash would read them from the journal.
//!
//! fjall (3.1) keeps a memtable that is in a table already until some memtable is written next: its history of versions is cleared only then.
//! So one look later a small one is.

/// Fewer bytes since the last rest are not worth a table of each area.
const WORTH: u64 = 2 << 20;
/// With at most so many bytes between two looks there is rest.
const QUIET: u64 = 128 << 10;

/// What was seen at the last looks.
#[derive(Default)]
pub(super) struct Rest {
    seen: u64,
    rested: u64,
    is_kept: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// All memtables go to tables.
    Tables,
    /// And the memory of those that went is let go.
    LetGo,
}

impl Rest {
    /// Looks at the bytes written so far.
    pub(super) fn look(&mut self, written: u64) -> Due {
        if written - std::mem::replace(&mut self.seen, written) > QUIET {
            return Due::Nothing;
        }
        if written - self.rested >= WORTH {
            self.rested = written;
            self.is_kept = true;
            return Due::Tables;
        }
        if std::mem::take(&mut self.is_kept) { Due::LetGo } else { Due::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memtables_go_once_when_writing_has_ended() {
        let mut rest = Rest::default();
        let mega = 1 << 20;
        for (written, due) in [
            (mega, Due::Nothing),
            (3 * mega, Due::Nothing),
            (6 * mega, Due::Nothing),
            (6 * mega + 10, Due::Tables),
            (6 * mega + 20, Due::LetGo),
            (6 * mega + 30, Due::Nothing),
            (7 * mega, Due::Nothing),
            (7 * mega, Due::Nothing),
            (9 * mega, Due::Nothing),
            (9 * mega, Due::Tables),
            (20 * mega, Due::Nothing),
            (20 * mega, Due::Tables),
            (20 * mega, Due::LetGo),
        ] {
            assert_eq!(rest.look(written), due, "{written}");
        }
    }
}
