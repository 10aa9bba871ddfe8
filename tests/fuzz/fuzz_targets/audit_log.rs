//! An audit log that somebody changed: nothing panics, no change of a log whose head is known stays unseen, and whatever
//! lies in the folder, a control plane can open it and go on, without a second fault of its own making.
#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use douane_ca::audit::{Event, Ledger, Record, verify};
use libfuzzer_sys::fuzz_target;

struct Good {
    folder: PathBuf,
    log: PathBuf,
    bytes: Vec<u8>,
    head: String,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("douane-fuzz-audit-{}", std::process::id()));
    let ledger = Ledger::open(&folder, 1 << 20).expect("a log");
    for number in 0..4 {
        ledger.append_blocking(Record::of(Event::Issued).because(format!("{number}"))).expect("a record");
    }
    let head = ledger.head().to_string();
    drop(ledger);
    let log = folder.join("0000000000000001.jsonl");
    let bytes = fs::read(&log).expect("the log");
    Good { folder, log, bytes, head }
});

// The input is a list of edits: where (two bytes), and what is laid over the byte there; an odd rest cuts the end.
fuzz_target!(|edits: &[u8]| {
    let good = &*GOOD;
    let mut bytes = good.bytes.clone();
    let mut steps = edits.chunks_exact(3);
    for step in steps.by_ref() {
        let at = usize::from(u16::from_be_bytes([step[0], step[1]])) % bytes.len();
        bytes[at] ^= step[2];
    }
    if let [cut, ..] = steps.remainder() {
        bytes.truncate(bytes.len() - usize::from(*cut).min(bytes.len()));
    }
    fs::write(&good.log, &bytes).expect("write");
    fs::write(good.folder.join("head"), &good.head).expect("write");
    let report = verify(&good.folder, None).expect("it can be read");
    assert_eq!(report.faults.is_empty(), bytes == good.bytes, "{:?}", report.faults);
});
