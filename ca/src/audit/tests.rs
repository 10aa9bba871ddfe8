//! What an auditor relies on: every change is found, a crash is healed and said, and what cannot be written does not
//! happen.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{
    AuditError, Event, Head, Ledger, Record, Report, Wanted, chain::Line, matching, paper::Paper, verify,
};

const LARGE: u64 = 1 << 20;

fn issued(number: usize) -> Record {
    Record {
        identity: Some(format!("spiffe://cluster.local/ns/shop/sa/web-{number}")),
        serial: Some(format!("{number:032x}")),
        ..Record::of(Event::Issued)
    }
}

fn refused(label: &str) -> Record {
    Record { label: Some(label.to_owned()), ..Record::of(Event::Refused) }.because("it is none of ours")
}

// A log of `count` records in files of at most about `file_bytes`.
async fn log_of(folder: &Path, count: usize, file_bytes: u64) {
    let ledger = Ledger::open(folder, file_bytes).unwrap();
    for number in 0..count {
        ledger.append(issued(number)).await.unwrap();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

fn whole(folder: &Path) -> Report {
    let report = verify(folder, None).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    report
}

fn faults(folder: &Path) -> String {
    verify(folder, None).unwrap().faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[tokio::test]
async fn records_are_chained_over_files_and_restarts() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        log_of(home.path(), 20, 2000).await;
    }
    let report = whole(home.path());
    assert!(report.files > 5, "{report:?}");
    assert_eq!(report.records, 60 + report.files as u64, "each file has a first line of its own");
    assert_eq!((report.first, report.head.unwrap().sequence), (1, report.records));
    for file in files(home.path()) {
        assert!(verify(&file, None).unwrap().faults.is_empty(), "each file can be verified alone");
    }
}

#[tokio::test]
async fn t19_every_changed_byte_is_found() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 3, LARGE).await;
    whole(home.path());
    let file = files(home.path()).pop().unwrap();
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(!faults(home.path()).is_empty(), "byte {at} {:?} was changed", char::from(good[at]));
    }
}

#[tokio::test]
async fn t19_removed_moved_added_and_cut_lines_are_found_and_named() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 6, LARGE).await;
    let file = files(home.path()).pop().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let found = |order: &[usize]| {
        let text: String = order.iter().map(|index| format!("{}\n", lines[*index])).collect();
        fs::write(&file, text).unwrap();
        faults(home.path())
    };
    assert!(found(&[0, 1, 2, 4, 5, 6]).contains("0000001.jsonl:4: records 4 to 4 are missing"));
    assert!(found(&[0, 1, 3, 2, 4, 5, 6]).contains(":4: it is record 3 where 5 must stand"));
    assert!(found(&[0, 1, 2, 2, 3, 4, 5, 6]).contains(":4: it is record 3 where 4 must stand"));
    assert!(found(&[0, 1, 2, 3, 4]).contains("records 6 to 7 are missing at the end"));
    assert!(found(&[1, 2, 3, 4, 5, 6]).contains("does not begin with its own first line"));
    assert_eq!(found(&[0, 1, 2, 3, 4, 5, 6]), "");
}

#[tokio::test]
async fn t19_a_line_written_anew_with_a_fitting_hash_is_found_at_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 4, LARGE).await;
    let file = files(home.path()).pop().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let before = Line::parse(lines[1].as_bytes()).unwrap().hash;
    let forged = Line::parse(lines[2].as_bytes()).unwrap().body().replace("web-1", "evil");
    lines[2] = format!("{{\"hash\":\"{}\",\"record\":{forged}}}", before.follow(forged.as_bytes()));
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    assert!(faults(home.path()).contains(":4: record 4 was changed, or does not follow"));
}

#[tokio::test]
async fn t19_a_missing_file_and_a_cut_end_are_found_by_what_is_known_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 20, 2000).await;
    let all = files(home.path());
    let head = whole(home.path()).head.unwrap();
    let aside = home.path().join("aside");

    fs::rename(&all[1], &aside).unwrap();
    assert!(faults(home.path()).contains("are missing before it"));
    fs::rename(&aside, &all[1]).unwrap();

    // Who cuts the end and writes the head anew is found only by a head that was kept elsewhere.
    fs::rename(all.last().unwrap(), &aside).unwrap();
    let cut = verify(&all[all.len() - 2], None).unwrap().head.unwrap();
    fs::write(home.path().join("head"), cut.to_string()).unwrap();
    whole(home.path());
    let kept: Head = head.to_string().parse().unwrap();
    let report = verify(home.path(), Some(kept)).unwrap();
    assert!(report.faults[0].what.contains("missing at the end"), "{report:?}");

    // The oldest files may have been taken to an archive: that is said, and is no fault.
    fs::remove_file(&all[0]).unwrap();
    assert!(whole(home.path()).notes[0].contains("earlier files are not here"));
}

#[tokio::test]
async fn t18_half_a_line_is_healed_and_the_healing_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 5, LARGE).await;
    fs::remove_file(home.path().join("head")).unwrap();
    let file = files(home.path()).pop().unwrap();
    let good = fs::read(&file).unwrap();
    let last = good[..good.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in [last + 1, last + 40, good.len() - 1] {
        fs::write(&file, &good[..cut]).unwrap();
        log_of(home.path(), 1, LARGE).await;
        let report = whole(home.path());
        assert!(report.notes[0].contains("half a line"), "{report:?}");
        assert_eq!(report.records, 5 + 1 + 1, "five whole ones, the healing, and the new one");
        fs::remove_file(home.path().join("head")).unwrap();
    }
    // A first line that is half written: the file begins anew.
    fs::write(&file, &good[..30]).unwrap();
    log_of(home.path(), 1, LARGE).await;
    assert_eq!(whole(home.path()).records, 3);
}

#[tokio::test]
async fn t19_a_log_that_was_changed_while_nobody_ran_says_so_for_ever() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 5, LARGE).await;
    let file = files(home.path()).pop().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("web-3", "evil!")).unwrap();
    log_of(home.path(), 2, LARGE).await;
    let found = faults(home.path());
    assert!(found.contains("is damaged") && found.contains("was changed"), "{found}");

    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 5, LARGE).await;
    fs::remove_file(files(home.path()).pop().unwrap()).unwrap();
    log_of(home.path(), 2, LARGE).await;
    let found = faults(home.path());
    assert!(found.contains("records 1 to 6 are missing"), "{found}");
}

#[tokio::test]
async fn two_control_planes_do_not_write_one_log() {
    let home = tempfile::tempdir().unwrap();
    let first = Ledger::open(home.path(), LARGE).unwrap();
    let second = Ledger::open(home.path(), LARGE).map(drop).unwrap_err();
    assert_eq!(second, AuditError::Locked(home.path().to_owned()));
    drop(first);
    Ledger::open(home.path(), LARGE).unwrap();
}

#[derive(Clone, Default)]
struct Faults {
    full: Arc<AtomicBool>,
    unsynced: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

struct Failing(File, Faults);

impl Paper for Failing {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if self.1.full.load(Ordering::SeqCst) {
            // As a full disk does: some of it is written.
            self.0.write(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        if self.1.unsynced.load(Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        if self.1.slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.sync()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.0.cut(length)
    }
}

fn failing(folder: &Path) -> (Ledger, Faults) {
    let faults = Faults::default();
    let theirs = faults.clone();
    let press = Box::new(move |file| Arc::new(Failing(file, theirs.clone())) as Arc<dyn Paper>);
    (Ledger::open_on(folder, LARGE, press).unwrap(), faults)
}

// A log that failed is opened anew twice a second at most.
async fn again(ledger: &Ledger, record: Record) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = ledger.append(record.clone()).await {
        assert!(tokio::time::Instant::now() < limit, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn t18_a_full_disk_refuses_until_there_is_room_and_leaves_a_whole_log() {
    let home = tempfile::tempdir().unwrap();
    let (ledger, faults) = failing(home.path());
    ledger.append(issued(1)).await.unwrap();
    faults.full.store(true, Ordering::SeqCst);
    assert!(matches!(ledger.append(issued(2)).await, Err(AuditError::Write(_))));
    assert!(matches!(ledger.write(issued(3)).await, Err(AuditError::Write(_))));
    faults.full.store(false, Ordering::SeqCst);
    again(&ledger, issued(4)).await;
    drop(ledger);
    assert_eq!(whole(home.path()).records, 3, "the first line, and the two that were answered");
}

#[tokio::test]
async fn t18_a_disk_that_does_not_sync_refuses_and_the_log_says_what_may_be_lost() {
    let home = tempfile::tempdir().unwrap();
    let (ledger, faults) = failing(home.path());
    ledger.append(issued(1)).await.unwrap();
    faults.unsynced.store(true, Ordering::SeqCst);
    assert!(matches!(ledger.append(issued(2)).await, Err(AuditError::Write(_))));
    assert!(ledger.write(issued(3)).await.is_err(), "from now on nobody is answered");
    faults.unsynced.store(false, Ordering::SeqCst);
    again(&ledger, issued(4)).await;
    drop(ledger);
    assert!(self::faults(home.path()).contains("may have lost it"));
}

#[tokio::test]
async fn one_sync_serves_all_who_wait() {
    let home = tempfile::tempdir().unwrap();
    let (ledger, faults) = failing(home.path());
    faults.slow.store(true, Ordering::SeqCst);
    let many: Vec<_> = (0..500)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.append(issued(number)).await })
        })
        .collect();
    for one in many {
        one.await.unwrap().unwrap();
    }
    let syncs = faults.syncs.load(Ordering::SeqCst);
    assert!(syncs < 100, "{syncs} syncs for 500 records");
    drop(ledger);
    whole(home.path());
}

#[tokio::test]
async fn t6_a_flood_of_refusals_is_counted_and_nothing_of_it_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(home.path(), LARGE).unwrap();
    for _ in 0..5000 {
        ledger.refuse(refused("token")).await.unwrap();
    }
    let stop = CancellationToken::new();
    stop.cancel();
    ledger.run(stop).await;
    drop(ledger);
    let (mut listed, mut counted) = (0, 0);
    matching(home.path(), &Wanted::default(), |record| {
        let record: serde_json::Value = serde_json::from_str(record).unwrap();
        match record["event"].as_str().unwrap() {
            "refused" => listed += 1,
            "refused_many" => counted += record["count"].as_u64().unwrap(),
            _ => {}
        }
    })
    .unwrap();
    assert_eq!(listed + counted, 5000);
    assert!(listed < 1000, "{listed} of them have a line each");
}

#[tokio::test]
async fn records_are_found_by_identity_and_time() {
    let home = tempfile::tempdir().unwrap();
    log_of(home.path(), 5, LARGE).await;
    let find = |identity: Option<&str>, since| {
        let mut found = 0;
        let wanted = Wanted { identity: identity.map(str::to_owned), since };
        matching(home.path(), &wanted, |_| found += 1).unwrap();
        found
    };
    assert_eq!(find(Some("/ns/shop/sa/web-3"), None), 1);
    assert_eq!(find(Some("/ns/shop/sa/web"), None), 0);
    assert_eq!(find(None, Some(SystemTime::now() + Duration::from_secs(60))), 0);
    assert_eq!(find(None, Some(SystemTime::now() - Duration::from_secs(60))), 6);
}

proptest! {
    #[test]
    fn no_line_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Line::parse(&bytes);
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("0000000000000001.jsonl"), &bytes).unwrap();
        let _ = verify(home.path(), None);
    }
}
