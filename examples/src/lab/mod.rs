//! The lab: a folder of Kubernetes YAML becomes running pods on this machine, each a network namespace on one bridge,
//! with real sidecars, real redirection rules and one control plane. Root is not needed.
//!
//! Processes, each started by the one above it:
//!
//! 1. *launcher* ([`launcher`]): what the operator started; makes the namespaces and waits in them
//! 2. *init* ([`init`]): process 1 of the lab; its end is the end of every process and namespace of the lab
//! 3. *daemon* ([`daemon`]): holds the [`Lab`](running::Lab): bridge, pods, sidecars, applications, control plane
//!
//! The lab knows no policy and no certificate: it runs the programs that do.

pub mod addresses;
pub mod capture;
pub mod cli;
pub mod confine;
pub mod control_plane;
pub mod daemon;
pub mod exec;
pub mod folder;
pub mod hosts;
pub mod init;
pub mod issuer;
pub mod launcher;
pub mod links;
pub mod mounts;
pub mod objects;
pub mod paperwork;
pub mod plan;
pub mod play;
pub mod pod;
pub mod pod_plan;
pub mod probe;
pub mod processes;
pub mod programs;
pub mod record;
pub mod refused;
pub mod relay;
pub mod resident;
pub mod roles;
pub mod running;
pub mod sidecar;
pub mod spec;
pub mod state;
pub mod status;
pub mod watch;
