//! The mesh as the Kubernetes API tells it: every kind has a watch of its own, and what they say becomes what files in a
//! folder become.
//!
//! `kinds` says what is watched, `watch` how, `document` and `object` what becomes of one object, `store` of all.
//! `residents`: whose an address is. Knows not what the resources mean (`assemble`).

mod document;
mod kinds;
mod object;
mod residents;
mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::{collections::VecDeque, mem, time::Duration};

use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use self::{
    kinds::KINDS,
    store::{Said, Store},
};
use super::{
    folder::{Loaded, Scan},
    notes::Note,
};
use crate::kubernetes::Client;

/// What the watches may say before it is taken in: then they wait, and the API server with them.
const HEARD_AHEAD: usize = 256;
/// What is said in a row is taken in at once.
const MOST_AT_ONCE: usize = 1024;
/// After a word, so long nothing more must come: `kubectl apply` of a folder is many.
const SETTLE: Duration = Duration::from_millis(20);
/// But a cluster in which something always changes is told of all the same.
const SETTLE_LIMIT: Duration = Duration::from_millis(100);

/// A watch that fell over is set up again after this.
const FALLEN_PAUSE: Duration = Duration::from_secs(1);

/// The mesh as the Kubernetes API tells it.
pub(crate) struct Cluster {
    heard: mpsc::Receiver<(usize, Said)>,
    /// Said, and not taken in yet.
    waiting: VecDeque<(usize, Said)>,
    store: Store,
}

impl Cluster {
    /// Begins to watch; nothing is known until [`Self::listen`] and [`Self::scan`] have taken it in.
    pub(crate) fn watch(client: &Client) -> Self {
        let (said, heard) = mpsc::channel(HEARD_AHEAD);
        for kind in 0..KINDS.len() {
            tokio::spawn(keep_watching(client.clone(), kind, said.clone()));
        }
        Self { heard, waiting: VecDeque::new(), store: Store::new() }
    }

    /// Waits until something was said, and until nothing more is for a moment. What was said is kept if this is dropped.
    pub(crate) async fn listen(&mut self) {
        // The watches outlive each other; none says anything more only when the process ends.
        let Some(first) = self.heard.recv().await else { return std::future::pending::<()>().await };
        self.waiting.push_back(first);
        let limit = Instant::now() + SETTLE_LIMIT;
        while self.waiting.len() < MOST_AT_ONCE {
            let until = limit.min(Instant::now() + SETTLE);
            let Ok(Some(next)) = time::timeout_at(until, self.heard.recv()).await else { return };
            self.waiting.push_back(next);
        }
    }

    /// Takes in what was said.
    pub(crate) fn scan(&mut self) -> Scan {
        self.store.hear(mem::take(&mut self.waiting))
    }

    /// Everything that is in force.
    pub(crate) fn loaded(&self) -> Loaded {
        self.store.loaded()
    }

    /// What operators wrote, with what is noted about it.
    pub(crate) fn notes(&self) -> Vec<Note> {
        self.store.notes()
    }
}

// A watch that panics is a mistake of ours; its kind must not stand still for it.
async fn keep_watching(client: Client, kind: usize, heard: watch::Heard) {
    loop {
        match tokio::spawn(watch::watch(client.clone(), kind, heard.clone())).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(%error, "a watch of the Kubernetes API fell over; it is set up again");
            }
        }
        time::sleep(FALLEN_PAUSE).await;
    }
}
