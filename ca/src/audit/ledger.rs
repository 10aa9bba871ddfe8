//! The door for whoever has something to record: it returns when the record is on disk.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    chain::Head,
    error::AuditError,
    files::Folder,
    flood::Flood,
    order::{Order, Until},
    paper::Press,
    record::Record,
    sync::Disk,
    writer::Writer,
};
use crate::state;

/// Records that may wait for the disk; who comes later waits for a place.
const MAX_WAITING: usize = 8192;
/// Counts of a flood are written, and the head is kept, so often.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// The head is logged so often, for whoever collects logs elsewhere.
const SAY_EVERY: Duration = Duration::from_secs(300);

/// The audit log of one control plane. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    folder: Folder,
    /// `None` only while it is being dropped.
    orders: Option<mpsc::Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
    disk: Disk,
    flood: Mutex<Flood>,
}

impl Ledger {
    /// Opens the log in `folder`, or begins one; a file that has reached `file_bytes` is followed by another.
    ///
    /// # Errors
    /// [`AuditError`] when it cannot be written.
    pub fn open(folder: &Path, file_bytes: u64) -> Result<Self, AuditError> {
        Self::open_on(folder, file_bytes, Box::new(|file| Arc::new(file)))
    }

    pub(super) fn open_on(folder: &Path, file_bytes: u64, press: Press) -> Result<Self, AuditError> {
        let fail =
            |error: io::Error| AuditError::Folder { path: folder.to_owned(), reason: error.to_string() };
        state::private_folder(folder).map_err(fail)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(folder.join("lock")).map_err(fail)?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => AuditError::Locked(folder.to_owned()),
            std::fs::TryLockError::Error(error) => fail(error),
        })?;
        let folder = Folder::new(folder);
        let (disk, (to_sync, written)) = (Disk::new(), std::sync::mpsc::channel());
        let mut writer = Writer::new(folder.clone(), file_bytes, press, (disk.clone(), to_sync), lock);
        writer.open()?;
        let (orders, incoming) = mpsc::channel(MAX_WAITING);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let syncer = disk.clone();
        let threads = vec![
            thread("audit-write")
                .spawn(move || writer.run(incoming))
                .map_err(|error| AuditError::writing(&error))?,
            thread("audit-sync")
                .spawn(move || syncer.run(&written))
                .map_err(|error| AuditError::writing(&error))?,
        ];
        let flood = Mutex::new(Flood::new(Instant::now()));
        Ok(Self(Arc::new(Shared { folder, orders: Some(orders), threads, disk, flood })))
    }

    /// Records; returns when the disk has it.
    ///
    /// # Errors
    /// [`AuditError`]: nothing is recorded, and what would have been must not happen.
    pub async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.order(record, Until::Synced).await
    }

    /// Records; returns when it is written, so that the end of our process does not lose it. The disk has it within a tenth
    /// of a second.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn write(&self, record: Record) -> Result<(), AuditError> {
        self.order(record, Until::Written).await
    }

    async fn order(&self, record: Record, until: Until) -> Result<(), AuditError> {
        let (done, told) = oneshot::channel();
        let orders = self.0.orders.as_ref().ok_or(AuditError::Ended)?;
        orders.send(Order { record, until, done }).await.map_err(|_| AuditError::Ended)?;
        told.await.unwrap_or(Err(AuditError::Ended))
    }

    /// [`Self::append`] for code that may block; never on a task of the runtime.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_blocking(&self, record: Record) -> Result<(), AuditError> {
        let (done, told) = oneshot::channel();
        let orders = self.0.orders.as_ref().ok_or(AuditError::Ended)?;
        let order = Order { record, until: Until::Synced, done };
        orders.blocking_send(order).map_err(|_| AuditError::Ended)?;
        told.blocking_recv().unwrap_or(Err(AuditError::Ended))
    }

    /// Records a refusal, as [`Self::write`] does. When there are too many to list, it is counted, and the count is
    /// recorded within a second: a flood fills no disk.
    ///
    /// # Errors
    /// As [`Self::append`]; it stays a refusal.
    pub async fn refuse(&self, record: Record) -> Result<(), AuditError> {
        let listed = self.flood().take(record, Instant::now());
        match listed {
            Some(record) => self.write(record).await,
            None => Ok(()),
        }
    }

    /// The last record that the disk has.
    #[must_use]
    pub fn head(&self) -> Head {
        self.0.disk.head()
    }

    /// Writes counts, keeps the head beside the log and says it in the log of the process, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut kept = None;
        let mut said: Option<time::Instant> = None;
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = time::sleep(KEEP_EVERY) => false,
            };
            let counts = self.flood().counts();
            for count in counts {
                // Said by the writer; the refusals themselves were refusals anyway.
                let _ = self.append(count).await;
            }
            let head = self.head();
            if kept != Some(head) {
                self.keep(head).await;
                kept = Some(head);
            }
            if stopping || said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                tracing::info!(target: "douane::audit", %head, "the audit log stands here");
                said = Some(time::Instant::now());
            }
            if stopping {
                return;
            }
        }
    }

    async fn keep(&self, head: Head) {
        let folder = self.0.folder.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || folder.keep(head)).await {
            tracing::warn!(%error, "the head of the audit log could not be kept");
        }
    }

    fn flood(&self) -> std::sync::MutexGuard<'_, Flood> {
        self.0.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    // Whoever opens the folder next finds it closed.
    fn drop(&mut self) {
        self.orders = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Err(error) = self.folder.keep(self.disk.head()) {
            tracing::warn!(%error, "the head of the audit log could not be kept");
        }
    }
}
