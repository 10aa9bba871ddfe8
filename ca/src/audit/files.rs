//! What lies in the folder: files named by the number of their first line, the anchor, and what a crash left of the
//! last line.
//!
//! Opening heals a half-written last line, and says so in the log itself. Anything else that is wrong stays as it was
//! found, and is said in the log as well: a control plane that no longer starts would help whoever did it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;

use super::{
    chain::{Hash, Head, Line},
    record::{Event, Record},
};
use crate::state::{self, Readers};

const SUFFIX: &str = ".jsonl";
/// A record's texts are bounded: no line of ours is longer.
pub(super) const MAX_LINE_BYTES: u64 = 32 * 1024;
/// `NUMBER:HASH`.
const MAX_ANCHOR_BYTES: u64 = 256;

/// The folder of one log.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// A log that is ready to be written.
pub(super) struct Opened {
    pub(super) file: File,
    /// Bytes of whole lines in it; zero: it has no header yet.
    pub(super) length: u64,
    pub(super) head: Head,
    /// What opening has to say in the log.
    pub(super) remarks: Vec<Record>,
}

/// A line of a file, with its end or, at the end of the file, without.
pub(super) struct Raw {
    pub(super) bytes: Vec<u8>,
    pub(super) whole: bool,
}

// What the last file says.
struct Scan {
    /// Of the last good line; `None`: there is none.
    head: Option<Head>,
    /// Bytes of good lines.
    good: u64,
    rest: Rest,
    /// The line that the anchor names is another one.
    betrayed: bool,
}

// What follows the last good line.
enum Rest {
    Nothing,
    /// Half a line, as a kill or a power cut leaves it.
    Torn(Vec<u8>),
    /// Lines that are none of ours, or do not follow.
    Damaged,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The files, the oldest first.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX)) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn anchor_path(&self) -> PathBuf {
        self.0.join("head")
    }

    /// The head that was kept last.
    pub(super) fn anchor(&self) -> io::Result<Option<Head>> {
        let file = match File::open(self.anchor_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = String::new();
        file.take(MAX_ANCHOR_BYTES).read_to_string(&mut text)?;
        text.parse().map(Some).map_err(io::Error::other)
    }

    /// Keeps `head`, which is on disk by now.
    pub(super) fn keep(&self, head: Head) -> io::Result<()> {
        state::write(&self.anchor_path(), head.to_string().as_bytes(), Readers::Owner)
    }

    /// A new file whose first line will be the one after `head`.
    pub(super) fn create(&self, head: Head) -> io::Result<File> {
        let path = self.0.join(format!("{:016}{SUFFIX}", head.sequence + 1));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        File::open(&self.0)?.sync_all()?;
        Ok(file)
    }

    /// Opens the log at its end, or begins one.
    pub(super) fn open(&self) -> io::Result<Opened> {
        let anchor = self.anchor()?;
        let mut remarks = Vec::new();
        let mut files = self.files()?;
        let mut resumed = None;
        let mut head = Head::START;
        while let Some(last) = files.pop() {
            let scan = scan(&last, anchor)?;
            if scan.betrayed {
                remarks
                    .push(Record::of(Event::Gap).because("the line that was kept as the head was changed"));
            }
            let usable = match scan.rest {
                Rest::Nothing => true,
                Rest::Torn(bytes) => {
                    remarks.push(healed(&last, scan.good, &bytes)?);
                    true
                }
                Rest::Damaged => {
                    remarks.push(Record::of(Event::Gap).because(format!("{} is damaged", name(&last))));
                    false
                }
            };
            match scan.head {
                Some(found) => {
                    head = found;
                    resumed = resumed.or(usable.then_some((last, scan.good)));
                    break;
                }
                // Not one good line: it begins anew, or is set aside; which line was the last, the file before says.
                None if usable => resumed = Some((last, 0)),
                None => fs::rename(&last, last.with_extension("damaged"))?,
            }
        }
        if let Some(anchor) = anchor.filter(|anchor| anchor.sequence > head.sequence) {
            let (from, to) = (head.sequence + 1, anchor.sequence);
            remarks.push(Record::of(Event::Gap).because(format!("records {from} to {to} are missing")));
            // Their numbers are not given to others.
            head.sequence = anchor.sequence;
        }
        let (file, length) = match resumed {
            Some((path, length)) => (OpenOptions::new().append(true).open(path)?, length),
            None => (self.create(head)?, 0),
        };
        Ok(Opened { file, length, head, remarks })
    }
}

/// The lines of a file; one that is too long to be ours ends it.
pub(super) fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Raw>> + use<>> {
    let mut file = BufReader::new(File::open(path)?);
    Ok(std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        match file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) => None,
            Ok(_) => {
                let whole = bytes.pop_if(|last| *last == b'\n').is_some();
                Some(Ok(Raw { bytes, whole }))
            }
            Err(error) => Some(Err(error)),
        }
    }))
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the first line of a file follows.
pub(super) fn predecessor(line: &Line<'_>) -> Option<Head> {
    let previous = line.entry.record.previous.as_deref()?.parse::<Hash>().ok()?;
    let first = line.entry.record.event == Event::File;
    first.then_some(Head { sequence: line.entry.sequence.checked_sub(1)?, hash: previous })
}

fn scan(path: &Path, anchor: Option<Head>) -> io::Result<Scan> {
    let mut scan = Scan { head: None, good: 0, rest: Rest::Nothing, betrayed: false };
    for raw in lines(path)? {
        let raw = raw?;
        let line = Line::parse(&raw.bytes).filter(|_| raw.whole);
        let before = line.as_ref().and_then(|line| scan.head.or_else(|| predecessor(line)));
        let (Some(line), Some(before)) = (line, before) else {
            // Without its end, it is the last.
            let torn = !raw.whole && (raw.bytes.len() as u64) < MAX_LINE_BYTES;
            scan.rest = if torn { Rest::Torn(raw.bytes) } else { Rest::Damaged };
            break;
        };
        if !line.follows(before.hash) || line.entry.sequence <= before.sequence {
            scan.rest = Rest::Damaged;
            break;
        }
        let head = line.head();
        scan.betrayed |= anchor.is_some_and(|anchor| anchor.sequence == head.sequence && anchor != head);
        scan.head = Some(head);
        scan.good += raw.bytes.len() as u64 + 1;
    }
    Ok(scan)
}

fn healed(path: &Path, good: u64, torn: &[u8]) -> io::Result<Record> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(good)?;
    file.sync_all()?;
    let hash = digest::digest(&digest::SHA256, torn);
    let hash = crate::hex::encode(hash.as_ref());
    let (file, bytes) = (name(path), torn.len());
    Ok(Record::of(Event::Healed).because(format!(
        "the last {bytes} bytes of {file} were half a line (SHA-256 {hash}); nobody had its answer"
    )))
}
