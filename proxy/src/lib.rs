//! Douane's sidecar: it acts on what the control plane says. See the README for the two flows.
//!
//! A proxy holds three live values, each with one writer and many readers, read at the moment of use: `Identity`
//! (who am I, whom do I trust), `Snapshot` (what the mesh is) and `Shutdown` (are we draining).
//!
//! Floors, from the top; a room imports only what stands below it (`tests/` enforces this):
//! `main > cli > app > inbound | outbound | admin | workload > exchange > authz | identity | discovery | telemetry > net >
//! limits > tls | redirect | config | backoff | refusal | shutdown > budget > douane-proto`.

pub mod admin;
pub mod app;
pub mod authz;
pub mod backoff;
pub mod budget;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod exchange;
pub mod identity;
pub mod inbound;
pub mod limits;
pub mod net;
pub mod outbound;
pub mod redirect;
pub mod refusal;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod workload;
