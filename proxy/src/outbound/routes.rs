//! Where destinations lead, remembered while the mesh is as it was: a change of it forgets all.
//!
//! Knows not how a destination is resolved (`resolve`). What is remembered is asked for anew every second, so that
//! discovery sees that it is in use.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use douane_proto::snapshot::Snapshot;
use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::resolve::Route;

/// Destinations remembered; a pod talks to few.
const MOST: usize = 1024;
const COUNTS: Duration = Duration::from_secs(1);

/// What was resolved, and by which state of the mesh; of that only its identity counts.
#[derive(Debug)]
pub(super) struct Routes<Mesh = Snapshot>(RefCell<Held<Mesh>>);

#[derive(Debug)]
struct Held<Mesh> {
    snapshot: Option<Arc<Mesh>>,
    routes: HashMap<SocketAddr, (Route, Instant), RandomState>,
}

impl<Mesh> Default for Routes<Mesh> {
    fn default() -> Self {
        Self(RefCell::new(Held { snapshot: None, routes: HashMap::default() }))
    }
}

impl<Mesh> Routes<Mesh> {
    /// Where `destination` leads, if it was resolved by this very snapshot.
    pub(super) fn held(&self, destination: SocketAddr, snapshot: &Arc<Mesh>) -> Option<Route> {
        let held = self.0.borrow();
        let same = held.snapshot.as_ref().is_some_and(|held| Arc::ptr_eq(held, snapshot));
        let (route, since) = held.routes.get(&destination).filter(|_| same)?;
        (since.elapsed() < COUNTS).then(|| route.clone())
    }

    /// Remembers it.
    pub(super) fn hold(&self, destination: SocketAddr, snapshot: &Arc<Mesh>, route: &Route) {
        let mut held = self.0.borrow_mut();
        let same = held.snapshot.as_ref().is_some_and(|held| Arc::ptr_eq(held, snapshot));
        if !same || held.routes.len() >= MOST {
            held.routes.clear();
            held.snapshot = Some(Arc::clone(snapshot));
        }
        held.routes.insert(destination, (route.clone(), Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use douane_proto::mesh::Protocol;

    use super::{super::resolve::Reach, *};
    use crate::exchange::names::Names;

    fn route() -> Route {
        let reach = Reach::Outside(([203, 0, 113, 9], 80).into());
        Route {
            service: None,
            protocol: Protocol::Http1,
            learned: Protocol::Undeclared,
            names: Names::Titled,
            reach,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_counts_for_a_second_and_only_while_the_mesh_is_the_same() {
        let (routes, now) = (Routes::default(), Arc::new("the mesh"));
        let to = SocketAddr::from(([10, 77, 0, 1], 80));
        routes.hold(to, &now, &route());

        assert_eq!(routes.held(to, &now), Some(route()));
        assert_eq!(routes.held(([10, 77, 0, 1], 81).into(), &now), None);
        assert_eq!(routes.held(to, &Arc::new("the mesh")), None);
        tokio::time::advance(COUNTS).await;
        assert_eq!(routes.held(to, &now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_most_are_remembered() {
        let (routes, now) = (Routes::default(), Arc::new("the mesh"));
        for number in 0..5000_u16 {
            routes.hold(([10, 77, 0, 1], number).into(), &now, &route());
        }
        assert!(routes.0.borrow().routes.len() <= MOST);
    }
}
