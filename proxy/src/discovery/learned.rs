//! What the own pod's undeclared ports have been seen to speak, for others to save time. Pure.
//!
//! Knows not how it was seen (`inbound`), nor how it is told (`follow`).

use std::collections::BTreeMap;

use douane_proto::{
    mesh::{Protocol, learned_to_wire},
    wire,
};

/// Ports that are remembered; of more nobody is told.
const MAX_PORTS: usize = 64;

/// What was seen, and whether it was told.
#[derive(Debug, Default)]
pub(super) struct Learned {
    ports: BTreeMap<u16, Protocol>,
    is_told: bool,
}

impl Learned {
    /// Sees `port` speak; is that new? Of a port that speaks this and that nothing is known any more.
    pub(super) fn see(&mut self, port: u16, protocol: Protocol) -> bool {
        let room = self.ports.len() < MAX_PORTS;
        match self.ports.get_mut(&port) {
            None if room => {
                self.ports.insert(port, protocol);
            }
            Some(known) if *known != protocol && *known != Protocol::Undeclared => {
                *known = Protocol::Undeclared;
            }
            None | Some(_) => return false,
        }
        self.is_told = false;
        true
    }

    /// A control plane that knows nothing of it listens from now on.
    pub(super) fn forget_telling(&mut self) {
        self.is_told = false;
    }

    /// Is there anything to tell?
    pub(super) fn is_untold(&self) -> bool {
        !self.is_told && !self.ports.is_empty()
    }

    /// What is to be told; nothing twice.
    pub(super) fn take_untold(&mut self) -> Vec<wire::LearnedProtocol> {
        if std::mem::replace(&mut self.is_told, true) { Vec::new() } else { learned_to_wire(&self.ports) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_told_once_to_each_control_plane() {
        let mut learned = Learned::default();

        assert!(learned.see(3306, Protocol::Tcp));
        assert_eq!(learned.take_untold().len(), 1);
        assert!(!learned.see(3306, Protocol::Tcp));
        assert_eq!(learned.take_untold(), []);
        learned.forget_telling();

        assert_eq!(learned.take_untold().len(), 1);
    }

    #[test]
    fn a_port_that_speaks_this_and_that_is_withdrawn_for_good() {
        let mut learned = Learned::default();
        learned.see(9000, Protocol::Tcp);

        assert!(learned.see(9000, Protocol::Http1));
        assert!(!learned.see(9000, Protocol::Tcp));

        assert_eq!(learned.take_untold(), [wire::LearnedProtocol { port: 9000, protocol: 0 }]);
    }

    #[test]
    fn only_so_many_ports_are_remembered() {
        let mut learned = Learned::default();

        let seen = (1..1000).filter(|port| learned.see(*port, Protocol::Tcp)).count();

        assert_eq!(seen, MAX_PORTS);
    }
}
