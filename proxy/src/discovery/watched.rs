//! What was asked, what is in use and what may be forgotten. So a sidecar's memory grows with what its pod talks to.
//! Pure but for the time that it is handed; the answers themselves are in the snapshot.

use std::{collections::HashMap, time::Duration};

use douane_proto::snapshot::Question;
use tokio::time::Instant;

/// Questions held at once; the control plane watches no more for one sidecar.
const MOST: usize = 10_000;
/// An unanswered question is asked again after this: the answer may have been lost with a stream.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// "Unknown" counts for this long. The control plane watches for an appearance for 30 s, so ours ends before.
const UNKNOWN_COUNTS: Duration = Duration::from_secs(25);
/// What nobody used for one to two of these is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// The questions of one sidecar.
#[derive(Debug, Default)]
pub(super) struct Watched {
    entries: HashMap<Question, Entry>,
    to_ask: Vec<Question>,
    last_sweep: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    asked: Instant,
    used: bool,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Known,
    Unknown(Instant),
}

/// Must a question be sent?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    Now,
    Already,
    TooMany,
}

impl Watched {
    /// Somebody wants to know.
    pub(super) fn want(&mut self, question: &Question, now: Instant) -> Asking {
        if let Some(entry) = self.entries.get_mut(question) {
            entry.used = true;
            if entry.answer != Answer::None || now.duration_since(entry.asked) < ASK_AGAIN {
                return Asking::Already;
            }
            entry.asked = now;
        } else {
            if self.entries.len() >= MOST {
                return Asking::TooMany;
            }
            let entry = Entry { asked: now, used: true, answer: Answer::None };
            self.entries.insert(question.clone(), entry);
        }
        self.to_ask.push(question.clone());
        Asking::Now
    }

    /// What is to be sent now.
    pub(super) fn take_fresh(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.to_ask)
    }

    /// Everything, for a new stream.
    pub(super) fn all(&mut self) -> Vec<Question> {
        self.to_ask.clear();
        self.entries.keys().cloned().collect()
    }

    /// An answer came. False when nobody asked (any more).
    pub(super) fn answered(&mut self, question: &Question, known: bool, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(question) else { return false };
        entry.answer = if known { Answer::Known } else { Answer::Unknown(now) };
        true
    }

    /// Does somebody still want to know?
    pub(super) fn contains(&self, question: &Question) -> bool {
        self.entries.contains_key(question)
    }

    /// Forgets what is unknown for too long, and now and then what nobody uses.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Question> {
        let last = *self.last_sweep.get_or_insert(now);
        let idle_due = now.duration_since(last) >= IDLE;
        let stale = |entry: &Entry| match entry.answer {
            Answer::Unknown(since) => now.duration_since(since) >= UNKNOWN_COUNTS,
            Answer::Known | Answer::None => idle_due && !entry.used,
        };
        let forgotten: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| stale(entry))
            .map(|(question, _)| question.clone())
            .collect();
        for question in &forgotten {
            self.entries.remove(question);
        }
        if idle_due {
            self.last_sweep = Some(now);
            self.entries.values_mut().for_each(|entry| entry.used = false);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> Question {
        Question::Address(Ipv4Addr::from(number).into())
    }

    #[test]
    fn one_question_is_in_flight_for_each_address() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        assert_eq!(watched.want(&address(1), now), Asking::Now);
        assert_eq!(watched.want(&address(1), now), Asking::Already);
        assert_eq!(watched.want(&address(2), now), Asking::Now);
        assert_eq!(watched.take_fresh().len(), 2);
        assert!(watched.take_fresh().is_empty());
    }

    #[test]
    fn an_unanswered_question_is_asked_again_and_an_answered_one_is_not() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.want(&address(1), now);
        assert_eq!(watched.want(&address(1), now + ASK_AGAIN), Asking::Now);
        watched.answered(&address(1), true, now);
        assert_eq!(watched.want(&address(1), now + ASK_AGAIN * 9), Asking::Already);
    }

    #[test]
    fn unknown_counts_for_less_than_the_control_plane_watches() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.want(&address(1), now);
        watched.answered(&address(1), false, now);
        assert!(watched.sweep(now + Duration::from_secs(24)).is_empty());
        assert_eq!(watched.sweep(now + Duration::from_secs(26)), [address(1)]);
        assert_eq!(watched.want(&address(1), now + Duration::from_secs(26)), Asking::Now);
    }

    #[test]
    fn what_nobody_uses_is_forgotten_and_what_is_used_is_kept() {
        let (mut watched, mut now) = (Watched::default(), Instant::now());
        for number in [1, 2] {
            watched.want(&address(number), now);
            watched.answered(&address(number), true, now);
        }
        assert!(watched.sweep(now).is_empty());
        now += IDLE;
        assert!(watched.sweep(now).is_empty());
        watched.want(&address(1), now);
        now += IDLE;
        assert_eq!(watched.sweep(now), [address(2)]);
        assert!(watched.contains(&address(1)));
    }

    #[test]
    fn more_than_the_control_plane_watches_is_not_asked() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        for number in 0..MOST {
            watched.want(&address(u32::try_from(number).unwrap()), now);
        }
        assert_eq!(watched.want(&address(u32::MAX), now), Asking::TooMany);
        assert_eq!(watched.want(&address(1), now), Asking::Already);
    }
}
