//! The replicas' places in a cluster, as values and pure functions: which one a newcomer takes, whether ours is still ours, and
//! what is written there.
//!
//! A place outlives whoever had it: until when anything that was signed there may be valid stays with it, and whoever takes it
//! next begins with that. Clocks of replicas are not compared: a newcomer counts by its own for how long a place says nothing.
//! Knows not where they are written down (`kubernetes`).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::horizon;
use crate::state::{MOST_REPLICAS, PlaceLost};

/// A place that has said nothing for so long is free: three times what a replica that has nothing to say leaves between.
const FREE_AFTER: Duration = Duration::from_secs(90);
/// Until when anything may be valid that was signed before anybody told of it here.
pub(super) const BEFORE: &str = "before";

/// What all replicas say, by key.
pub(super) type Said = BTreeMap<String, String>;

/// What is written; `None`: it is taken away.
pub(super) type Words = BTreeMap<String, Option<String>>;

/// Which of what a replica says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Holder,
    /// Another one each time: it is there.
    Seen,
    Horizon,
    Roll,
}

impl Topic {
    pub(super) fn of(self, number: u8) -> String {
        let topic = match self {
            Self::Holder => "holder",
            Self::Seen => "seen",
            Self::Horizon => "horizon",
            Self::Roll => "roll",
        };
        format!("{topic}-{number}")
    }
}

/// A place that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) me: String,
    pub(super) number: u8,
    /// The horizon that lies there, as far as we know.
    pub(super) horizon: Option<String>,
}

/// Whose a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    /// Ours, and it is not written down any more.
    Nobodys,
    Anothers,
}

/// What a newcomer has seen of places while it waited for one. It outlives a try.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    since: BTreeMap<u8, (String, Instant)>,
}

/// Was anything signed before a map came to be in which nobody says anything?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    Nothing,
    /// It lay in a map that was lost, or was never told.
    Unknown,
}

impl Silence {
    /// The place that a newcomer takes: its own from before; else one that nobody has; else one whose owner has said nothing for
    /// as long as we have looked.
    pub(super) fn place_for(&mut self, me: &str, said: &Said, now: Instant) -> Option<u8> {
        let holder = |number: u8| said.get(&Topic::Holder.of(number));
        let own = (1..=MOST_REPLICAS).find(|number| holder(*number).is_some_and(|holder| holder == me));
        let unused = || (1..=MOST_REPLICAS).find(|number| holder(*number).is_none());
        if let Some(number) = own.or_else(unused) {
            return Some(number);
        }
        (1..=MOST_REPLICAS).find(|number| {
            let beat = [Topic::Holder, Topic::Seen].map(|topic| said.get(&topic.of(*number)));
            let beat = format!("{beat:?}");
            let (seen, since) = self.since.entry(*number).or_insert_with(|| (beat.clone(), now));
            if *seen != beat {
                (*seen, *since) = (beat, now);
            }
            now.saturating_duration_since(*since) >= FREE_AFTER
        })
    }
}

impl Place {
    /// Whose it is. Where another had it meanwhile and left, it is another's: what lies there is not ours.
    pub(super) fn whose(&self, said: &Said) -> Whose {
        let horizon = said.get(&Topic::Horizon.of(self.number));
        match said.get(&Topic::Holder.of(self.number)) {
            Some(holder) if *holder == self.me => Whose::Ours,
            None if horizon.is_none() || horizon == self.horizon.as_ref() => Whose::Nobodys,
            _ => Whose::Anothers,
        }
    }

    /// What is written so that the place says `news` and that we are there, `now` seconds after 1970. What was lost is said
    /// again.
    pub(super) fn words(
        &self,
        said: &Said,
        news: Option<(Topic, &str)>,
        now: u64,
    ) -> Result<Words, PlaceLost> {
        let mut words = match self.whose(said) {
            Whose::Ours => Words::new(),
            Whose::Nobodys => self.claim(said, Past::Unknown, now),
            Whose::Anothers => return Err(PlaceLost(self.number)),
        };
        words.insert(Topic::Seen.of(self.number), Some(now.to_string()));
        if let Some((topic, text)) = news {
            words.insert(topic.of(self.number), Some(text.to_owned()));
        }
        Ok(words)
    }

    /// What is written to take it.
    pub(super) fn claim(&self, said: &Said, past: Past, now: u64) -> Words {
        let mut words = Words::from([
            (Topic::Holder.of(self.number), Some(self.me.clone())),
            (Topic::Seen.of(self.number), Some(now.to_string())),
            (Topic::Roll.of(self.number), None),
        ]);
        if let Some(horizon) = &self.horizon {
            words.insert(Topic::Horizon.of(self.number), Some(horizon.clone()));
        }
        if is_blank(said) && past == Past::Unknown {
            words.insert(BEFORE.to_owned(), Some(horizon::unknown(now)));
        }
        words
    }

    /// What is written to give it back; the horizon stays.
    pub(super) fn farewell(&self) -> Words {
        [Topic::Holder, Topic::Seen, Topic::Roll].map(|topic| (topic.of(self.number), None)).into()
    }
}

/// Has nobody ever said anything here? Horizons stay, so that this is a new map, or one that was lost and made anew.
pub(super) fn is_blank(said: &Said) -> bool {
    let topics = [Topic::Holder, Topic::Horizon];
    let mut keys = (1..=MOST_REPLICAS).flat_map(|number| topics.map(|topic| topic.of(number)));
    !said.contains_key(BEFORE) && !keys.any(|key| said.contains_key(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[(&str, &str)]) -> Said {
        lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn ours() -> Place {
        Place { me: "a".to_owned(), number: 2, horizon: Some("2000".to_owned()) }
    }

    fn written(said: &Said, words: Words) -> Said {
        let mut said = said.clone();
        for (key, word) in words {
            match word {
                Some(word) => said.insert(key, word),
                None => said.remove(&key),
            };
        }
        said
    }

    #[test]
    fn g11_a_replica_takes_its_own_place_or_an_unused_one_at_once() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let two = said(&[("holder-1", "a"), ("seen-1", "1000"), ("holder-2", "b"), ("seen-2", "1000")]);
        assert_eq!(silence.place_for("b", &two, now), Some(2));
        assert_eq!(silence.place_for("c", &two, now), Some(3));
        assert_eq!(silence.place_for("c", &Said::new(), now), Some(1));
    }

    #[test]
    fn g11_where_all_places_are_taken_one_that_says_nothing_is_free_whatever_its_owners_clock_said() {
        let mut full = Said::new();
        for number in 1..=MOST_REPLICAS {
            full.insert(Topic::Holder.of(number), format!("pod-{number}"));
            full.insert(Topic::Seen.of(number), "7".to_owned());
        }
        let (mut silence, start) = (Silence::default(), Instant::now());
        assert_eq!(silence.place_for("new", &full, start), None);
        // Of all but the third a new word, by a clock that is years behind.
        for number in (1..=MOST_REPLICAS).filter(|number| *number != 3) {
            full.insert(Topic::Seen.of(number), "8".to_owned());
        }
        let almost = start + FREE_AFTER - Duration::from_millis(1);
        assert_eq!(silence.place_for("new", &full, almost), None);
        assert_eq!(silence.place_for("new", &full, start + FREE_AFTER), Some(3));
    }

    #[test]
    fn g11_a_place_that_was_lost_is_taken_again_with_what_was_signed_and_what_is_not_known_counts_as_a_day() {
        let again = ours().words(&Said::new(), Some((Topic::Roll, "who")), 1000).unwrap();
        let after = written(&Said::new(), again);
        assert_eq!(ours().whose(&after), Whose::Ours);
        let of = |key: &str| after.get(key).map(String::as_str);
        assert_eq!((of("holder-2"), of("horizon-2"), of("seen-2")), (Some("a"), Some("2000"), Some("1000")));
        assert_eq!((of("roll-2"), of(BEFORE)), (Some("who"), Some(horizon::unknown(1000).as_str())));

        // The next says its own, and not for how long the map may stand for what is not in it.
        let other = Place { me: "b".to_owned(), number: 1, horizon: None };
        let both = written(&after, other.words(&after, None, 5000).unwrap());
        assert_eq!((both.get("holder-1"), both.get(BEFORE)), (Some(&"b".to_owned()), after.get(BEFORE)));
        assert_eq!(both.get("horizon-1"), None);
    }

    #[test]
    fn g11_nobody_writes_over_the_place_of_another_nor_over_what_another_has_left_there() {
        for taken in [
            said(&[("holder-2", "b"), ("horizon-2", "2000")]),
            said(&[("holder-2", "b")]),
            said(&[("horizon-2", "9000")]),
        ] {
            assert_eq!(ours().words(&taken, Some((Topic::Horizon, "3000")), 1000), Err(PlaceLost(2)));
        }
        let lost = PlaceLost(2).to_string();
        assert!(lost.contains("place 2") && lost.contains("start"), "{lost}");
    }

    #[test]
    fn g11_a_place_in_order_says_what_is_new_and_nothing_else() {
        let found = said(&[("holder-2", "a"), ("horizon-2", "2000"), ("roll-2", "who"), (BEFORE, "9")]);
        let words = ours().words(&found, Some((Topic::Horizon, "3000")), 1000).unwrap();
        assert_eq!(
            words,
            Words::from([
                ("seen-2".to_owned(), Some("1000".to_owned())),
                ("horizon-2".to_owned(), Some("3000".to_owned())),
            ])
        );
    }

    #[test]
    fn g11_a_place_that_was_given_back_keeps_its_horizon_and_is_the_next_ones() {
        let found = said(&[("holder-2", "a"), ("horizon-2", "2000"), ("roll-2", "who"), ("seen-2", "9")]);
        let left = written(&found, ours().farewell());
        assert_eq!(left, said(&[("horizon-2", "2000")]));
        assert!(!is_blank(&left), "nothing was lost");
        let next = Place { me: "b".to_owned(), number: 2, horizon: left.get("horizon-2").cloned() };
        let taken = written(&left, next.claim(&left, Past::Unknown, 1000));
        assert_eq!((taken.get("horizon-2"), taken.get(BEFORE)), (found.get("horizon-2"), None));
    }

    #[test]
    fn g11_a_first_start_waits_for_nobody_before_it() {
        let first = Place { me: "a".to_owned(), number: 1, horizon: None };
        assert!(!first.claim(&Said::new(), Past::Nothing, 1000).contains_key(BEFORE));
        assert!(first.claim(&Said::new(), Past::Unknown, 1000).contains_key(BEFORE), "from a backup");
    }
}
