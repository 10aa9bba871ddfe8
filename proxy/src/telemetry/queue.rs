//! Finished spans on their way to the collector: a bounded queue between the data path, which never waits, and the task
//! that sends them.

use std::{cell::RefCell, collections::VecDeque};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::Notify;

use crate::config::export::Queue;

/// One sidecar's spans, in one thread.
#[derive(Debug)]
pub(crate) struct SpanQueue {
    bounds: Queue,
    spans: RefCell<VecDeque<SpanData>>,
    /// Rung for the first span and for a full batch.
    bell: Notify,
}

impl SpanQueue {
    pub(crate) fn new(bounds: Queue) -> Self {
        Self { bounds, spans: RefCell::default(), bell: Notify::new() }
    }

    /// Takes a span if there is room; when not, it is not even made.
    #[must_use]
    pub(crate) fn push(&self, span: impl FnOnce() -> SpanData) -> bool {
        let mut spans = self.spans.borrow_mut();
        if spans.len() >= self.bounds.most {
            return false;
        }
        spans.push_back(span());
        if spans.len() == 1 || spans.len() == self.bounds.batch {
            self.bell.notify_one();
        }
        true
    }

    /// The oldest spans, one batch at most.
    pub(crate) fn take(&self) -> Vec<SpanData> {
        let mut spans = self.spans.borrow_mut();
        let count = spans.len().min(self.bounds.batch);
        spans.drain(..count).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.borrow().len()
    }

    /// Waits until there is a span.
    pub(crate) async fn filled(&self) {
        while self.len() == 0 {
            self.bell.notified().await;
        }
    }

    /// Waits until there is a batch.
    pub(crate) async fn batch(&self) {
        while self.len() < self.bounds.batch {
            self.bell.notified().await;
        }
    }
}
