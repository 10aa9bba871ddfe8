//! Authorities that share their state on a shelf: whoever has the lease changes it, whoever had it does not.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{Authority, IssueError, NOW, OpenError, Setup, at, csr, domain, web};
use crate::{
    authority::{Force, Issued, RotateError, SignError},
    state::{Item, PlaceLost, Shelf, StateError, StateFolder},
};

/// What lies in a cluster, as `kubernetes` keeps it: whoever writes must lead by then.
#[derive(Debug, Default)]
struct Common {
    leader: Option<u8>,
    fence: Option<u8>,
    items: HashMap<Item, Vec<u8>>,
    away: bool,
    place_lost: bool,
}

#[derive(Debug)]
struct Pretended {
    number: u8,
    common: Arc<Mutex<Common>>,
}

impl Pretended {
    fn reach(&self) -> io::Result<std::sync::MutexGuard<'_, Common>> {
        let common = self.common.lock().unwrap();
        if common.away { Err(io::ErrorKind::TimedOut.into()) } else { Ok(common) }
    }
}

impl Shelf for Pretended {
    fn replica(&self) -> u8 {
        self.number
    }

    fn name(&self, _: Item) -> PathBuf {
        "secret/douane-authority".into()
    }

    fn read(&self, item: Item) -> io::Result<Option<Vec<u8>>> {
        Ok(self.reach()?.items.get(&item).cloned())
    }

    fn write(&self, item: Item, bytes: &[u8]) -> io::Result<()> {
        let mut common = self.reach()?;
        if item == Item::Authority && common.fence != Some(self.number) {
            return Err(io::Error::other("another replica leads by now"));
        }
        common.items.insert(item, bytes.to_vec());
        Ok(())
    }

    fn lead(&self) -> io::Result<bool> {
        let mut common = self.reach()?;
        if common.place_lost {
            return Err(io::Error::other(PlaceLost(self.number)));
        }
        if common.leader.is_none() {
            common.leader = Some(self.number);
        }
        if common.leader == Some(self.number) {
            common.fence = Some(self.number);
        }
        Ok(common.leader == Some(self.number))
    }

    fn leave(&self) {
        self.common.lock().unwrap().leader = None;
    }
}

struct Ground {
    home: tempfile::TempDir,
    common: Arc<Mutex<Common>>,
}

impl Ground {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), common: Arc::default() }
    }

    fn open(&self, number: u8) -> Result<Authority, OpenError> {
        let shelf = Arc::new(Pretended { number, common: Arc::clone(&self.common) });
        let folder = StateFolder::new(self.home.path().join(number.to_string())).with_shelf(shelf);
        let mut setup = Setup::new(domain(), std::time::Duration::from_secs(3600));
        setup.terms.root_lead = std::time::Duration::ZERO;
        Authority::open_with(&folder, setup, at(NOW))
    }

    // The lease runs out, and another takes it.
    fn give_lead_to(&self, number: u8) {
        self.common.lock().unwrap().leader = Some(number);
    }

    fn says(&self, item: Item, until: u64) {
        let said = format!(r#"{{"signedUntil":{until}}}"#).into_bytes();
        self.common.lock().unwrap().items.insert(item, said);
    }

    fn said(&self, item: Item) -> serde_json::Value {
        serde_json::from_slice(&self.common.lock().unwrap().items[&item]).unwrap()
    }

    fn away(&self, away: bool) {
        self.common.lock().unwrap().away = away;
    }
}

fn issue(authority: &Authority) -> Result<Issued, IssueError> {
    authority.issue(&csr(&rcgen::KeyPair::generate().unwrap()), &web(), None, at(NOW))
}

fn roots(authority: &Authority) -> Vec<Vec<u8>> {
    authority.bundle().borrow().roots.clone()
}

#[test]
fn g11_replicas_that_start_at_once_have_one_root_which_whoever_leads_makes() {
    let ground = Ground::new();
    ground.give_lead_to(1);
    let early = ground.open(2).err().unwrap();
    assert!(matches!(early, OpenError::State(StateError::Locked(_))), "{early}");
    let first = ground.open(1).unwrap();
    let second = ground.open(2).unwrap();
    assert_eq!((first.leads(), second.leads()), (true, false));
    assert_eq!(roots(&first), roots(&second));
    let (one, two) = (issue(&first).unwrap(), issue(&second).unwrap());
    assert_eq!(one.authority, two.authority);
    assert_ne!(one.chain[1], two.chain[1], "an intermediate of its own");
    let bundle = |number: &str| std::fs::read(ground.home.path().join(number).join("bundle.pem")).unwrap();
    assert_eq!(bundle("1"), bundle("2"));
}

#[test]
fn g11_whoever_lost_the_lease_changes_nothing_any_more_and_follows() {
    let ground = Ground::new();
    let (first, second) = (ground.open(1).unwrap(), ground.open(2).unwrap());
    ground.give_lead_to(2);
    second.advance(at(NOW)).unwrap();
    assert!(second.leads());

    // It does not know yet, and what it writes is refused.
    assert!(first.leads());
    let before = roots(&first);
    let refused = first.rotate_root(Force::Yes, at(NOW)).unwrap_err();
    assert!(matches!(refused, RotateError::State(_)), "{refused}");
    assert_eq!(roots(&first), before);
    // Then it does.
    first.advance(at(NOW)).unwrap();
    assert!(!first.leads());
    assert!(matches!(first.rotate_root(Force::Yes, at(NOW)), Err(RotateError::Follows)));

    let coming = second.rotate_root(Force::Yes, at(NOW)).unwrap();
    first.advance(at(NOW)).unwrap();
    assert_eq!((roots(&first).len(), roots(&first)), (2, roots(&second)));
    assert_eq!(issue(&first).unwrap().authority, coming);

    // And back again.
    ground.give_lead_to(1);
    second.advance(at(NOW)).unwrap();
    first.advance(at(NOW)).unwrap();
    assert_eq!((first.leads(), second.leads()), (true, false));
    first.rotate_intermediate(at(NOW)).unwrap();
}

#[test]
fn g11_without_the_shelf_nothing_changes_and_after_ten_seconds_nothing_is_signed_by_whoever_led() {
    let ground = Ground::new();
    let authority = ground.open(1).unwrap();
    authority.advance(at(NOW)).unwrap();
    issue(&authority).unwrap();
    ground.away(true);
    assert!(authority.advance(at(NOW)).is_err());
    assert!(authority.rotate_root(Force::Yes, at(NOW)).is_err());
    assert!(authority.may_sign(), "a failure of a moment is none");
    authority.pen.hold_until(std::time::Instant::now());
    assert!(matches!(issue(&authority), Err(IssueError::Sign(SignError::Stale))));
    assert!(!authority.may_sign());
    ground.away(false);
    authority.advance(at(NOW)).unwrap();
    assert!(authority.may_sign());
    issue(&authority).unwrap();
}

#[test]
fn g11_whoever_leaves_signs_nothing_more_and_the_next_leads_at_once() {
    let ground = Ground::new();
    let (first, second) = (ground.open(1).unwrap(), ground.open(2).unwrap());
    issue(&first).unwrap();
    first.leave();
    assert!(issue(&first).is_err());
    second.advance(at(NOW)).unwrap();
    assert!(second.leads());
    // What the first has signed is known to the second, although the first is gone.
    let until = second.status(at(NOW)).unwrap();
    assert!(until.active().is_some());
}

#[test]
fn g11_whoever_has_lost_its_place_ends_and_does_not_try_again() {
    let ground = Ground::new();
    let (first, second) = (ground.open(1).unwrap(), ground.open(2).unwrap());
    ground.away(true);
    assert!(!first.advance(at(NOW)).unwrap_err().is_overtaken(), "it may come back");
    ground.away(false);
    ground.common.lock().unwrap().place_lost = true;
    for one in [&first, &second] {
        let lost = one.advance(at(NOW)).unwrap_err();
        assert!(lost.is_overtaken(), "{lost}");
    }
    let opened = ground.open(3).err().unwrap();
    assert!(matches!(&opened, OpenError::State(error) if error.is_place_lost()), "{opened}");
}

#[test]
fn g11_a_root_waits_for_whoever_got_a_certificate_before_what_was_said_of_it_was_lost() {
    let ground = Ground::new();
    let authority = ground.open(1).unwrap();
    ground.says(Item::Before, NOW + 60);
    let coming = authority.rotate_root(Force::No, at(NOW)).unwrap();
    let status = authority.status(at(NOW + 59)).unwrap();
    assert_ne!(status.active().unwrap().id, coming);
    let waits_for = &status.next[0].lagging.names[0].name;
    assert!(waits_for.contains("was lost"), "{waits_for}");
    authority.advance(at(NOW + 59)).unwrap();
    assert_ne!(authority.status(at(NOW + 59)).unwrap().active().unwrap().id, coming);
    authority.advance(at(NOW + 60)).unwrap();
    assert_eq!(authority.status(at(NOW + 60)).unwrap().active().unwrap().id, coming);
}

#[test]
fn g11_whoever_takes_a_place_does_not_forget_what_was_signed_there_before() {
    let ground = Ground::new();
    let long = NOW + 20 * 3600;
    ground.says(Item::Horizon(1), long);
    let authority = ground.open(1).unwrap();
    let issued = issue(&authority).unwrap();
    assert!(issued.not_after < i64::try_from(long).unwrap());
    assert_eq!(ground.said(Item::Horizon(1))["signedUntil"], long);
}
