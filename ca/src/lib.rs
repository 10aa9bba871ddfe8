//! Douane's control plane: it attests, signs, rotates, and streams the mesh to its sidecars.
//!
//! Floors, from the top; a room imports only what stands below it (`tests/` enforces this):
//! `main > cli > app > check | status | webhook > admin | inject | install | issue | istio | policy | rpc | tls | upstream > office > attest | authority | discovery > audit | federation | jwks > fetch | kubernetes | traffic > budget | config | hex | holders | metrics | peer | state > douane-proto`.

pub mod admin;
pub mod app;
pub mod attest;
pub mod audit;
pub mod authority;
pub mod budget;
pub mod check;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod federation;
pub mod fetch;
pub mod hex;
pub mod holders;
pub mod inject;
pub mod install;
pub mod issue;
pub mod istio;
pub mod jwks;
pub mod kubernetes;
pub mod metrics;
pub mod office;
pub mod peer;
pub mod policy;
pub mod rpc;
pub mod state;
pub mod status;
pub mod tls;
pub mod traffic;
pub mod upstream;
pub mod webhook;
