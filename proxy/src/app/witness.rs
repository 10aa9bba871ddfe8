//! Telemetry has seen what the control plane asks about.

use std::time::Instant;

use douane_proto::wire;

use crate::{discovery::witness::Witness, telemetry::access::Telemetry};

impl Witness for Telemetry {
    fn begin(&self) {
        self.edges.forget_telling();
    }

    fn figures(&self) -> Vec<wire::Figures> {
        self.edges.take_news(Instant::now())
    }
}
