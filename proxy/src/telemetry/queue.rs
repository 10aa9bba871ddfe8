//! Finished spans on their way to the collector: a bounded queue between the data path, which never waits, and the task
//! that sends them.

use std::{cell::RefCell, collections::VecDeque};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::Notify;

/// One sidecar's spans, in one thread.
#[derive(Debug, Default)]
pub(crate) struct SpanQueue {
    spans: RefCell<VecDeque<SpanData>>,
    /// Rung for the first span and for a full batch.
    bell: Notify,
}

impl SpanQueue {
    /// Takes a span if there is room; when not, it is not even made.
    #[must_use]
    pub(crate) fn push(&self, span: impl FnOnce() -> SpanData) -> bool {
        let mut spans = self.spans.borrow_mut();
        if spans.len() >= MOST_SPANS {
            return false;
        }
        spans.push_back(span());
        if spans.len() == 1 || spans.len() == BATCH {
            self.bell.notify_one();
        }
        true
    }

    /// The oldest spans, one batch at most.
    pub(crate) fn take(&self) -> Vec<SpanData> {
        let mut spans = self.spans.borrow_mut();
        let count = spans.len().min(BATCH);
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
        while self.len() < BATCH {
            self.bell.notified().await;
        }
    }
}

// Spans; OpenTelemetry's own default.
pub(crate) const MOST_SPANS: usize = 2048;
// Spans. A batch is encoded on the data path's thread: so many take a fraction of a millisecond, OpenTelemetry's 512
// would hold up requests for several.
pub(crate) const BATCH: usize = 128;
