//! The thread that writes: what has come together since it looked last becomes one write. Who waits for the write is told
//! then; who waits for the disk is told by `sync`.
//!
//! A disk that is full or fails: everybody is told so, nothing of the batch stays in the file, and the next batch tries
//! anew. Knows not who waits.

use std::{
    fs::File,
    io,
    sync::{Arc, mpsc as threads},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use super::{
    chain::Head,
    error::AuditError,
    files::{Folder, Opened},
    order::{Order, Until},
    paper::{Paper, Press},
    record::{Event, Record},
    sync::{Disk, Written},
};

/// Lines that one write may hold; more wait for the next.
const MAX_BATCH: usize = 4096;
/// A log that cannot be opened is tried again so often: opening reads the last file.
const REOPEN_EVERY: Duration = Duration::from_millis(500);

/// The thread's own things.
pub(super) struct Writer {
    folder: Folder,
    file_bytes: u64,
    press: Press,
    log: Option<Log>,
    disk: Disk,
    to_sync: threads::Sender<Written>,
    failing: Option<AuditError>,
    tried: Instant,
    // Released when the thread has ended.
    _lock: File,
}

struct Log {
    paper: Arc<dyn Paper>,
    length: u64,
    head: Head,
}

impl Writer {
    pub(super) fn new(
        folder: Folder,
        file_bytes: u64,
        press: Press,
        (disk, to_sync): (Disk, threads::Sender<Written>),
        lock: File,
    ) -> Self {
        Self {
            folder,
            file_bytes,
            press,
            log: None,
            disk,
            to_sync,
            failing: None,
            tried: Instant::now(),
            _lock: lock,
        }
    }

    /// Opens the log, so that a start fails aloud where it cannot be written.
    pub(super) fn open(&mut self) -> Result<(), AuditError> {
        let Opened { file, length, head, mut remarks } =
            self.folder.open().map_err(|error| AuditError::writing(&error))?;
        if self.disk.take_failure() {
            let lost = "the disk did not take what was written last; a power cut may have lost it";
            remarks.push(Record::of(Event::Gap).because(lost));
        }
        for remark in &remarks {
            tracing::error!(
                target: "douane::audit",
                folder = %self.folder.path().display(),
                reason = remark.reason,
                "the audit log is not as it was left"
            );
        }
        let mut log = Log { paper: (self.press)(file), length, head };
        log.write(remarks).and_then(|()| log.paper.sync()).map_err(|error| AuditError::writing(&error))?;
        self.disk.holds(log.head);
        self.log = Some(log);
        Ok(())
    }

    /// Writes until nobody can order any more.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut batch = Vec::new();
        while orders.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            let mut records = Vec::with_capacity(batch.len());
            let (mut for_write, mut for_disk) = (Vec::new(), Vec::new());
            for Order { record, until, done } in batch.drain(..) {
                records.push(record);
                match until {
                    Until::Written => for_write.push(done),
                    Until::Synced => for_disk.push(done),
                }
            }
            let outcome = self.write(records);
            self.say(&outcome);
            if let (Ok(()), Some(log)) = (&outcome, &self.log) {
                let written = Written { paper: Arc::clone(&log.paper), head: log.head, waiting: for_disk };
                // Fails only when the other thread has died; then nobody who waits is told that all is well.
                let _ = self.to_sync.send(written);
            } else {
                for_write.append(&mut for_disk);
            }
            for done in for_write {
                // Who has gone does not want to know.
                let _ = done.send(outcome.clone());
            }
        }
    }

    fn write(&mut self, records: Vec<Record>) -> Result<(), AuditError> {
        if self.disk.has_failed() {
            self.log = None;
        }
        if self.log.is_none() {
            if let Some(error) = &self.failing
                && self.tried.elapsed() < REOPEN_EVERY
            {
                return Err(error.clone());
            }
            self.tried = Instant::now();
            self.open()?;
        }
        let Some(log) = &mut self.log else { return Err(AuditError::Ended) };
        let turned = if log.length >= self.file_bytes { log.turn(&self.folder, &self.press) } else { Ok(()) };
        turned.and_then(|()| log.write(records)).map_err(|error| {
            // What is in the file is not known any more: it is read anew before more is written.
            self.log = None;
            AuditError::writing(&error)
        })
    }

    // Once when it begins and once when it ends, however many are refused meanwhile.
    fn say(&mut self, outcome: &Result<(), AuditError>) {
        match outcome {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::warn!("the audit log can be written again: certificates are issued");
                }
            }
            Err(error) => {
                if self.failing.is_none() {
                    tracing::error!(
                        %error,
                        folder = %self.folder.path().display(),
                        "NO CERTIFICATE IS ISSUED until the audit log can be written"
                    );
                }
                self.failing = Some(error.clone());
            }
        }
    }
}

impl Log {
    fn write(&mut self, records: Vec<Record>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let (mut head, mut lines) = (self.head, Vec::new());
        let now = SystemTime::now();
        if self.length == 0 {
            let previous = Some(head.hash.to_string());
            head.push(Record { previous, ..Record::of(Event::File) }, now, &mut lines);
        }
        for record in records {
            head.push(record, now, &mut lines);
        }
        if let Err(error) = self.paper.write(&lines) {
            // Nobody got an answer: the lines must not say that somebody did.
            let _ = self.paper.cut(self.length);
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.head = head;
        Ok(())
    }

    // Goes on in a new file, when the old one is on disk.
    fn turn(&mut self, folder: &Folder, press: &Press) -> io::Result<()> {
        self.paper.sync()?;
        self.paper = press(folder.create(self.head)?);
        self.length = 0;
        Ok(())
    }
}
