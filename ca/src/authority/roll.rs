//! What each of several replicas says of those who hold its certificates: a file of its own on the shared folder, written
//! once a second, so that whoever leads takes no step that would break a sidecar of another.
//!
//! Bounded: holders who know the same bundle and live by the same authorities are one line. A replica is there while its file
//! changes; of one that is gone nobody knows whom it served in its last second, so that all of them count as one who knows
//! nothing, until the last of their certificates has ended. Knows not what is done about it (`plan`).

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::horizon;
use crate::{
    holders::Holder,
    state::{self, Item, MOST_REPLICAS, Readers, StateError, StateFolder},
};

/// Lines; a rotation has a handful.
const MOST_LINES: usize = 64;
/// A line has about 400 bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// A replica whose file has not changed for so long is gone: it has stopped to sign long before.
const GONE_AFTER: Duration = Duration::from_secs(20);

/// What a replica says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Roll {
    /// Another number each time.
    beat: u64,
    /// The bundle that it hands out.
    place: (u64, u64),
    /// Key identifiers of those who vouch for what it signs.
    authorities: Vec<String>,
    holders: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line {
    /// One of them.
    name: String,
    count: usize,
    connected: bool,
    knows: (u64, u64),
    until: i64,
    authorities: Vec<String>,
}

/// What is known of the other replicas.
#[derive(Debug, Default)]
pub(super) struct Others {
    by_place: HashMap<u8, Seen>,
}

#[derive(Debug)]
struct Seen {
    beat: u64,
    since: Instant,
    has_changed: bool,
}

/// Is a replica there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    /// Its file lay there when we came.
    Perhaps,
    Gone,
}

impl Roll {
    /// Of these holders, by a replica that hands out the bundle at `place` and signs below `authorities`.
    pub(super) fn of(holders: &[Holder], place: (u64, u64), authorities: &[Vec<u8>]) -> Self {
        let mut lines: BTreeMap<_, Line> = BTreeMap::new();
        for holder in holders {
            let key = (holder.connected, holder.knows, holder.authorities.clone());
            let fits = lines.len() < MOST_LINES || lines.contains_key(&key);
            // One for many: as far behind as any, and below whoever is doubted.
            let key = if fits { key } else { (holder.connected, (0, 0), Vec::new()) };
            let line = lines.entry(key).or_insert_with_key(|(connected, knows, authorities)| Line {
                name: holder.name.clone(),
                count: 0,
                connected: *connected,
                knows: *knows,
                until: holder.until,
                authorities: written(authorities),
            });
            line.count += 1;
            line.until = line.until.max(holder.until);
        }
        let holders = lines.into_values().collect();
        Self { beat: rand::random(), place, authorities: written(authorities), holders }
    }

    /// Writes it. Need not outlive the machine: who is gone counts as gone.
    pub(super) fn write(&self, folder: &StateFolder) -> Result<(), StateError> {
        let Some(number) = folder.replica() else { return Ok(()) };
        if let Some(shelf) = folder.shelf() {
            let item = Item::Roll(number);
            let text = serde_json::to_vec(self).map_err(io::Error::other);
            return text
                .and_then(|text| shelf.write(item, &text))
                .map_err(state::failed("write", &shelf.name(item)));
        }
        let (rolls, path) = (folder.rolls(), folder.roll_of(number));
        state::private_folder(&rolls).map_err(state::failed("make", &rolls))?;
        let text = serde_json::to_vec(self).map_err(io::Error::other);
        let written = text.and_then(|text| state::write(&path, &text, Readers::Owner));
        written.map_err(state::failed("write", &path))
    }

    // Who holds its certificates, and itself: what it signs next is for somebody who knows what it knows.
    fn holders(self, number: u8) -> Vec<Holder> {
        let own = Line {
            name: format!("(replica {number})"),
            count: 1,
            connected: true,
            knows: self.place,
            until: 0,
            authorities: self.authorities,
        };
        self.holders.into_iter().chain([own]).filter_map(|line| line.holder(number)).collect()
    }
}

impl Line {
    fn holder(self, number: u8) -> Option<Holder> {
        let authorities = self.authorities.iter().map(|id| crate::hex::decode(id));
        let others = self.count.saturating_sub(1);
        Some(Holder {
            name: match others {
                0 => self.name,
                _ => format!("{} and {others} more of replica {number}", self.name),
            },
            connected: self.connected,
            knows: self.knows,
            until: self.until,
            authorities: authorities.collect::<Option<_>>()?,
        })
    }
}

impl Others {
    /// Whom every other replica has given certificates to, as far as it is known at `now`.
    pub(super) fn holders(&mut self, folder: &StateFolder, now: i64) -> Vec<Holder> {
        let others = (1..=MOST_REPLICAS).filter(|number| Some(*number) != folder.replica());
        let known: Vec<_> =
            others.flat_map(|number| self.of(folder, number, (now, Instant::now()))).collect();
        let lost = horizon::end_of_unknown(folder, now).map(|until| Holder {
            name: "(whoever got a certificate before what replicas said was lost)".to_owned(),
            connected: false,
            knows: (0, 0),
            until,
            authorities: Vec::new(),
        });
        known.into_iter().chain(lost).collect()
    }

    fn of(&mut self, folder: &StateFolder, number: u8, (now, instant): (i64, Instant)) -> Vec<Holder> {
        let roll = match folder.shelf() {
            Some(shelf) => {
                let found = shelf.read(Item::Roll(number)).ok().flatten();
                found.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            }
            None => read(&folder.roll_of(number)),
        };
        let presence = roll.as_ref().map_or(Presence::Gone, |roll| self.presence(number, roll.beat, instant));
        let said = roll.filter(|_| presence != Presence::Gone).map(|roll| roll.holders(number));
        let until = horizon::end_of(folder, number, now).filter(|_| presence != Presence::Here);
        let unknown = until.map(|until| Holder {
            name: format!("(whoever got a certificate from replica {number}, which is not there)"),
            connected: false,
            knows: (0, 0),
            until,
            authorities: Vec::new(),
        });
        said.into_iter().flatten().chain(unknown).collect()
    }

    // When in doubt it is counted as both.
    fn presence(&mut self, number: u8, beat: u64, now: Instant) -> Presence {
        let seen = self.by_place.entry(number).or_insert(Seen { beat, since: now, has_changed: false });
        if seen.beat != beat {
            *seen = Seen { beat, since: now, has_changed: true };
        }
        let is_recent = now.saturating_duration_since(seen.since) < GONE_AFTER;
        match (is_recent, seen.has_changed) {
            (true, true) => Presence::Here,
            (true, false) => Presence::Perhaps,
            (false, _) => Presence::Gone,
        }
    }
}

fn written(key_ids: &[Vec<u8>]) -> Vec<String> {
    key_ids.iter().map(|id| crate::hex::encode(id)).collect()
}

fn read(path: &Path) -> Option<Roll> {
    if fs::metadata(path).ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn holder(name: &str, sequence: u64, authority: u8) -> Holder {
        Holder {
            name: name.to_owned(),
            connected: true,
            knows: (1, sequence),
            until: NOW + 600,
            authorities: vec![vec![authority; 20]],
        }
    }

    fn folders() -> (tempfile::TempDir, StateFolder, StateFolder) {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(home.path().join("state"));
        let (one, two) = (folder.among_replicas().unwrap(), folder.among_replicas().unwrap());
        state::private_folder(&folder.replicas()).unwrap();
        assert_eq!((one.replica(), two.replica()), (Some(1), Some(2)));
        (home, one, two)
    }

    #[test]
    fn g11_a_replica_is_known_by_what_it_says_while_it_says_anything_new() {
        let (_home, one, two) = folders();
        let (mut others, start) = (Others::default(), Instant::now());
        let say = |holders: &[Holder]| {
            Roll::of(holders, (1, 7), &[vec![9; 20]]).write(&two).unwrap();
        };
        let horizon = serde_json::json!({ "signedUntil": NOW + 900 }).to_string();
        fs::write(two.horizon_of(2), horizon).unwrap();
        say(&[holder("shop/web", 7, 1), holder("shop/orders", 7, 1), holder("shop/ledger", 6, 2)]);

        let perhaps = others.of(&one, 2, (NOW, start));
        assert_eq!((perhaps.len(), perhaps[3].knows, perhaps[3].until), (4, (0, 0), NOW + 900));
        say(&[holder("shop/web", 7, 1), holder("shop/orders", 7, 1), holder("shop/ledger", 6, 2)]);
        let known = others.of(&one, 2, (NOW, start));
        let names: Vec<&str> = known.iter().map(|holder| holder.name.as_str()).collect();
        assert_eq!(names, ["shop/ledger", "shop/web and 1 more of replica 2", "(replica 2)"]);
        assert_eq!(known.iter().map(|one| one.knows.1).collect::<Vec<_>>(), [6, 7, 7]);
        assert!(known[2].connected && known[2].lives_by(&[9; 20]) && !known[2].lives_by(&[1; 20]));

        let later = start + GONE_AFTER;
        assert_eq!(others.of(&one, 2, (NOW, later)), perhaps[3..], "it says nothing any more");
        assert!(others.of(&one, 2, (NOW + 900, later)).is_empty(), "nothing of it is valid any more");
    }

    #[test]
    fn t6_a_roll_stays_short_whoever_is_on_it() {
        let (_home, one, two) = folders();
        let many: Vec<Holder> = (0..1000).map(|number| holder("shop/web", number, 1)).collect();
        let roll = Roll::of(&many, (1, 7), &[]);
        assert!(roll.holders.len() <= MOST_LINES + 1);
        assert_eq!(roll.holders.iter().map(|line| line.count).sum::<usize>(), 1000);
        roll.write(&two).unwrap();
        assert_eq!(read(&one.roll_of(2)), Some(roll));
    }
}
