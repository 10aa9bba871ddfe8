//! T18: killed at any step of any write, by random schedules of rotations, taints, certificates and restarts, the
//! authority opens again by itself, and nothing that was said or signed is contradicted.
//!
//! A real process is killed in `killed`; here the disk ends at that step, which is the same for what lies on it, and
//! a thousand times as fast.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use douane_proto::svid::{TrustBundle, subject_key_id};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rcgen::KeyPair;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, NOW, Setup, at, csr, domain, web};
use crate::{
    authority::{Force, Issued, OpenError, keep::Keep, seal::Seal, standing::Phase},
    holders::{Held, Holders},
    state::{Disk, Moment, StateFolder},
};

/// Schedules that are tried; each has some forty operations and a handful of crashes. `DOUANE_TEST_SCHEDULES` says
/// another number.
const SCHEDULES: u64 = 50;
const OPERATIONS: usize = 40;
/// Steps of writes in one operation are fewer than this.
const FARTHEST_CRASH: usize = 40;

/// What the world has seen of one authority, over all its lives.
#[derive(Default)]
pub(super) struct World {
    /// What was published, by its place.
    published: BTreeMap<(u64, u64), TrustBundle>,
    serials: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Root and end of each certificate.
    leaves: Vec<(Vec<u8>, i64)>,
    tainted: BTreeSet<String>,
}

impl World {
    pub(super) fn sees(&mut self, bundle: &TrustBundle) {
        let newest = self.published.keys().next_back().copied();
        assert!(newest.is_none_or(|newest| bundle.place() >= newest), "C: the bundle went back");
        let known = self.published.entry(bundle.place()).or_insert_with(|| bundle.clone());
        assert_eq!(known, bundle, "C: one place, two contents");
    }

    pub(super) fn gets(&mut self, issued: &Issued, bundle: &TrustBundle, folder: &Path) {
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let serial = (leaf.issuer().as_raw().to_vec(), leaf.raw_serial().to_vec());
        assert!(self.serials.insert(serial), "D: a serial number twice");
        let root = issued.key_ids.last().unwrap();
        let vouches = |root: &[u8], der: &Vec<u8>| subject_key_id(der).is_some_and(|id| id == root);
        assert!(bundle.roots.iter().any(|der| vouches(root, der)), "B: signed below an unpublished root");
        let durable = stored(folder);
        let signer =
            durable.slots.iter().find(|slot| slot.key_id == *root).expect("B: signed by a lost root");
        // Where the last write failed half-way, the disk may be a step ahead; it must not let go of the root too early.
        let is_kept = signer.leaves_until.is_some_and(|until| until >= issued.not_after);
        assert!(signer.phase == Phase::Active || is_kept, "B: the signer on the disk is {signer:?}");
        self.leaves.push((root.clone(), issued.not_after));
    }

    // After each start.
    fn finds(&mut self, authority: &Authority, now: u64) {
        let bundle = authority.bundle().borrow().clone();
        self.sees(&bundle);
        let ids: Vec<_> = bundle.roots.iter().filter_map(|der| subject_key_id(der)).collect();
        let now = i64::try_from(now).unwrap();
        for (root, until) in &self.leaves {
            let is_tainted = !self.tainted.is_empty();
            assert!(
                *until <= now || ids.contains(root) || is_tainted,
                "a root left before what it signed ended"
            );
        }
    }
}

pub(super) fn stored(folder: &Path) -> crate::authority::standing::Standing {
    Keep::new(&StateFolder::new(folder), Disk::default(), Seal::Open).read(&domain()).unwrap()
}

/// A disk that ends after so many steps; nothing reaches it afterwards.
fn ending(after: usize) -> Disk {
    let left = Arc::new(AtomicUsize::new(after));
    Disk::told(move |_, _| {
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        before.map(drop).map_err(|_| io::Error::other("the process was killed here"))
    })
}

fn open(folder: &Path, disk: Disk, now: u64) -> Result<(Authority, Holders), OpenError> {
    let holders = Holders::default();
    let mut setup = Setup::new(domain(), Duration::from_secs(60));
    setup.terms.root_life = Duration::from_secs(4000);
    setup.terms.intermediate_life = Duration::from_secs(600);
    setup.terms.root_lead = Duration::from_secs(5);
    (setup.holders, setup.disk) = (holders.clone(), disk);
    Authority::open_with(&StateFolder::new(folder), setup, at(now)).map(|it| (it, holders))
}

pub(super) struct Run {
    pub(super) folder: PathBuf,
    pub(super) now: u64,
    pub(super) random: StdRng,
    pub(super) world: World,
    request: Vec<u8>,
}

impl Run {
    pub(super) fn new(folder: PathBuf, seed: u64) -> Self {
        let request = csr(&KeyPair::generate().unwrap());
        Self { folder, now: NOW, random: StdRng::seed_from_u64(seed), world: World::default(), request }
    }

    // Whatever fails (the disk has ended) fails; what succeeds is seen.
    fn operate(&mut self, authority: &Authority, holders: &Holders) {
        let now = at(self.now);
        match self.random.random_range(0..10) {
            0 => drop(authority.rotate_root(Force::No, now)),
            1 => drop(authority.rotate_root(Force::Yes, now)),
            2 => drop(authority.rotate_intermediate(now)),
            3 if self.random.random_bool(0.3) => {
                let roots = authority.status(now).unwrap().roots;
                let root = &roots[self.random.random_range(0..roots.len())];
                self.world.tainted.insert(root.id.clone());
                drop(authority.taint(&root.id, now));
            }
            3 => {
                let signer = authority.status(now).unwrap().intermediate.unwrap().id;
                drop(authority.taint(&signer, now));
            }
            4 | 5 => {
                let bundle = authority.bundle().borrow().place();
                let until = i64::try_from(self.now + 60).unwrap();
                holders.attend("shop/web-1").uses(Held { bundle, until, authorities: Vec::new() });
            }
            6 => self.now += self.random.random_range(1..200),
            _ => {
                let bundle = authority.bundle().borrow().clone();
                if let Ok(issued) = authority.issue(&self.request, &web(), None, now) {
                    authority.handed_out("shop/web-1", &issued);
                    self.world.gets(&issued, &bundle, &self.folder);
                }
            }
        }
        drop(authority.advance(at(self.now)));
        self.world.sees(&authority.bundle().borrow());
    }

    fn schedule(&mut self) -> usize {
        let mut crashes = 0;
        let mut done = 0;
        while done < OPERATIONS {
            let until_crash = self.random.random_range(0..FARTHEST_CRASH);
            // A crash while it opens leaves something that opens.
            if let Ok((authority, holders)) = open(&self.folder, ending(until_crash), self.now) {
                for _ in 0..self.random.random_range(1..12) {
                    self.operate(&authority, &holders);
                    done += 1;
                }
            }
            crashes += 1;
            let (authority, _) = open(&self.folder, Disk::default(), self.now).expect("it opens by itself");
            self.world.finds(&authority, self.now);
        }
        crashes
    }
}

// Where there is one, memory takes the disk's place: what is tried is the order of steps.
pub(super) fn ground() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn t18_and_invariants_b_c_d_a_crash_at_any_step_of_any_schedule_contradicts_nothing() {
    let wanted = std::env::var("DOUANE_TEST_SCHEDULES").ok().and_then(|text| text.parse().ok());
    let schedules = wanted.unwrap_or(SCHEDULES);
    let mut crashes = 0;
    for seed in 0..schedules {
        let home = ground();
        let mut run = Run::new(home.path().join("state"), seed);
        crashes += std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.schedule()))
            .unwrap_or_else(|_| panic!("schedule {seed}"));
    }
    assert!(crashes as u64 > schedules * 3, "{crashes} crashes are too few");
}

#[test]
fn t18_each_single_step_of_a_rotation_may_be_the_last() {
    // Every step, one after the other, until a rotation runs through.
    for steps in 0..200 {
        let home = ground();
        let folder = home.path().join("state");
        drop(open(&folder, Disk::default(), NOW).unwrap());
        let before = stored(&folder);
        let through = open(&folder, ending(steps), NOW).is_ok_and(|(authority, _)| {
            authority.rotate_root(Force::Yes, at(NOW)).is_ok()
                && authority.advance(at(NOW + 10)).is_ok()
                && authority.bundle().borrow().sequence > before.sequence + 1
        });
        let (authority, _) = open(&folder, Disk::default(), NOW + 20).expect("it opens by itself");
        let after = stored(&folder);
        assert!(after.generation >= before.generation);
        assert!(authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW + 20)).is_ok());
        if through {
            assert!(steps > 20, "{steps} steps cannot be a rotation");
            return;
        }
    }
    panic!("the rotation never ran through");
}

#[test]
fn t18_a_full_or_broken_disk_changes_nothing_and_is_gone_on_with_when_it_works_again() {
    for (moment, kind) in [
        (Moment::Begun, io::ErrorKind::StorageFull),
        (Moment::Written, io::ErrorKind::StorageFull),
        // What a disk says that could not keep what it took: EIO at fsync.
        (Moment::Synced, io::ErrorKind::Other),
        (Moment::Durable, io::ErrorKind::Other),
    ] {
        let home = ground();
        let folder = home.path().join("state");
        let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::clone(&broken);
        let disk =
            Disk::told(
                move |at, _| {
                    if at == moment && seen.load(Ordering::SeqCst) { Err(kind.into()) } else { Ok(()) }
                },
            );
        let (authority, _) = open(&folder, disk, NOW).unwrap();
        let before = authority.bundle().borrow().clone();
        broken.store(true, Ordering::SeqCst);
        assert!(authority.rotate_root(Force::No, at(NOW)).is_err(), "{moment:?}");
        assert_eq!(*authority.bundle().borrow(), before, "{moment:?}: nothing was published");
        let unsigned = authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW));
        assert!(unsigned.is_err(), "{moment:?}: its end could not be written down");
        broken.store(false, Ordering::SeqCst);
        authority.advance(at(NOW + 1)).unwrap();
        authority.rotate_root(Force::No, at(NOW + 1)).unwrap();
        assert!(authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW)).is_ok());
        assert_eq!(authority.bundle().borrow().roots.len(), 2, "{moment:?}");
        drop(authority);
        assert!(open(&folder, Disk::default(), NOW + 2).is_ok());
    }
}
