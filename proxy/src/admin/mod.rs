//! What an operator and the kubelet ask the sidecar itself.
//!
//! - [`health`]: are we ready? One value that the application sets
//! - [`public`]: port 15020, for anybody: readiness, liveness, metrics, the kubelet's questions to the application ([`probe`]);
//!   nothing else; [`wait`] waits for readiness
//! - [`socket`]: `admin.sock`, for root and our own uid: all the rest; [`client`] is its other end
//! - `report`: what the live values look like to an operator
//!
//! Changes nothing of the traffic but by draining.

pub mod client;
pub mod health;
pub mod probe;
pub mod public;
mod report;
pub mod socket;
pub mod wait;
