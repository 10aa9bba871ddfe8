//! Telemetry has seen what the control plane asks about.

use std::{rc::Rc, time::Instant};

use douane_proto::wire;
use tokio::sync::Notify;

use crate::{discovery::witness::Witness, telemetry::access::Telemetry};

impl Witness for Telemetry {
    fn begin(&self) {
        self.edges.forget_telling();
        self.sightings.forget();
    }

    fn figures(&self) -> Vec<wire::Figures> {
        self.edges.take_news(Instant::now())
    }

    fn inquire(&self, inquiry: wire::Inquiry) {
        self.sightings.inquire(inquiry);
    }

    fn news(&self) -> Rc<Notify> {
        self.sightings.news()
    }

    fn sightings(&self) -> Vec<wire::Sightings> {
        self.sightings.take()
    }
}
